//! `kubectl logs`: followed across rotation, of the container before, by time and by count.

use anyhow::Result;
use berth_e2e_kubernetes::images::BUSYBOX;
use berth_e2e_kubernetes::scenario::scenario;

#[test]
fn following_a_log_loses_nothing_when_it_is_rotated() -> Result<()> {
    scenario("rotation", |s| {
        // 16000 lines of 100 bytes: many times what the kubelet lets a log grow to, over some of its periods.
        let script = "i=0; while [ $i -lt 16000 ]; do i=$((i+1)); printf 'line %06d %087d\\n' $i 0; \
                      [ $((i % 1000)) != 0 ] || sleep 1.5; done; sleep 100000";
        s.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: talker }}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: talker
    image: {BUSYBOX}
    command: [ sh, -c, \"{script}\" ]
"
        ))?;
        s.wait("pod/talker", "condition=Ready")?;
        let output = tempfile::NamedTempFile::new()?;
        let _follow = s.beside(&["logs", "-f", "talker"], output.path())?;
        let text = || Ok(std::fs::read_to_string(output.path())?);
        let tail = |text: &String| text.contains("line 016000 ");
        let text = s.until(text, tail).map_err(|_| anyhow::anyhow!("the last line did not come"))?;
        let numbers: Vec<u32> =
            text.lines().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
        assert_eq!(numbers, (1..=16000).collect::<Vec<_>>());
        // It was rotated, or this would say nothing: the file that is left begins later.
        let left = s.kubectl(&["logs", "talker"])?;
        assert!(!left.contains("line 000001 "), "the log was never rotated");
        Ok(())
    })
}

#[test]
fn the_log_of_the_container_before_is_kept() -> Result<()> {
    scenario("previous", |s| {
        s.apply(&format!(
            "
apiVersion: v1
kind: Pod
metadata: {{ name: again }}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [ {{ name: count, emptyDir: {{}} }} ]
  containers:
  - name: again
    image: {BUSYBOX}
    volumeMounts: [ {{ name: count, mountPath: /count }} ]
    command: [ sh, -c, 'echo x >> /count/x; n=$(wc -l < /count/x); echo run $n; [ $n != 1 ] || exit 1; sleep 100000' ]
"
        ))?;
        let restarts = || s.field("pod/again", "{.status.containerStatuses[0].restartCount}");
        s.until(restarts, |count| count == "1")?;
        s.until(|| s.kubectl(&["logs", "again"]), |log| log == "run 2")?;
        assert_eq!(s.kubectl(&["logs", "again", "--previous"])?, "run 1");
        Ok(())
    })
}

#[test]
fn logs_are_cut_by_count_and_carry_times() -> Result<()> {
    scenario("tail", |s| {
        s.run("five", BUSYBOX, &["seq", "5"])?;
        s.wait("pod/five", "jsonpath={.status.phase}=Succeeded")?;
        assert_eq!(s.kubectl(&["logs", "five", "--tail=2"])?, "4\n5");
        let stamped = s.kubectl(&["logs", "five", "--timestamps", "--tail=1"])?;
        let (time, line) = stamped.split_once(' ').unwrap_or_default();
        assert!(time.starts_with("20") && time.contains('T') && line == "5", "{stamped}");
        Ok(())
    })
}
