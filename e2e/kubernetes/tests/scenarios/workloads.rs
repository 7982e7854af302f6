//! Deployments, jobs and cron jobs.

use anyhow::Result;
use berth_e2e_kubernetes::images::{BUSYBOX, NGINX, NGINX_NEW};
use berth_e2e_kubernetes::scenario::{Scenario, scenario};

fn images(s: &Scenario) -> Result<Vec<String>> {
    let images = s.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "--field-selector=status.phase=Running",
        "-o",
        r#"jsonpath={range .items[*]}{.spec.containers[0].image}{"\n"}{end}"#,
    ])?;
    Ok(images.lines().map(str::to_owned).collect())
}

#[test]
fn a_deployment_of_ten_is_rolled_out_and_back() -> Result<()> {
    scenario("rollout", |s| {
        s.apply(&format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: web }}
spec:
  replicas: 10
  selector: {{ matchLabels: {{ app: web }} }}
  template:
    metadata: {{ labels: {{ app: web }} }}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: nginx
        image: {NGINX}
        readinessProbe: {{ httpGet: {{ path: /, port: 80 }}, periodSeconds: 1 }}
"
        ))?;
        let rolled_out = || s.kubectl(&["rollout", "status", "deployment/web", "--timeout=240s"]);
        rolled_out()?;
        assert_eq!(images(s)?, vec![NGINX; 10]);
        s.kubectl(&["set", "image", "deployment/web", &format!("nginx={NGINX_NEW}")])?;
        rolled_out()?;
        s.until(|| images(s), |images| *images == vec![NGINX_NEW; 10])?;
        s.kubectl(&["rollout", "undo", "deployment/web"])?;
        rolled_out()?;
        s.until(|| images(s), |images| *images == vec![NGINX; 10])?;
        let restarts = s.kubectl(&[
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].status.containerStatuses[*].restartCount}",
        ])?;
        assert!(restarts.split(' ').all(|count| count == "0"), "{restarts}");
        Ok(())
    })
}

#[test]
fn a_job_runs_to_completion_and_tries_again_what_failed() -> Result<()> {
    scenario("job", |s| {
        s.apply(&format!(
            "
apiVersion: batch/v1
kind: Job
metadata: {{ name: three }}
spec:
  completions: 3
  parallelism: 3
  template:
    spec:
      restartPolicy: OnFailure
      volumes: [ {{ name: tries, emptyDir: {{}} }} ]
      containers:
      - name: try
        image: {BUSYBOX}
        volumeMounts: [ {{ name: tries, mountPath: /tries }} ]
        command: [ sh, -c, 'test -e /tries/one && echo done || {{ touch /tries/one; exit 3; }}' ]
"
        ))?;
        s.wait("job/three", "condition=Complete")?;
        assert_eq!(s.field("job/three", "{.status.succeeded}")?, "3");
        assert_eq!(s.kubectl(&["logs", "-l", "job-name=three"])?, "done\ndone\ndone");
        let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
        assert_eq!(s.kubectl(&["get", "pods", "-l", "job-name=three", "-o", restarts])?, "1 1 1");
        let last = "{.items[0].status.containerStatuses[0].lastState.terminated.exitCode}";
        let last = s.kubectl(&["get", "pods", "-l", "job-name=three", "-o", &format!("jsonpath={last}")])?;
        assert_eq!(last, "3");
        Ok(())
    })
}

#[test]
fn a_job_fails_when_its_pods_do() -> Result<()> {
    scenario("bad-job", |s| {
        s.apply(&format!(
            "
apiVersion: batch/v1
kind: Job
metadata: {{ name: bad }}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [ {{ name: bad, image: {BUSYBOX}, command: [ sh, -c, exit 42 ] }} ]
"
        ))?;
        s.wait("job/bad", "condition=Failed")?;
        let code = "jsonpath={.items[0].status.containerStatuses[0].state.terminated.exitCode}";
        assert_eq!(s.kubectl(&["get", "pods", "-l", "job-name=bad", "-o", code])?, "42");
        Ok(())
    })
}

#[test]
fn a_cron_job_starts_jobs_by_schedule_and_by_hand() -> Result<()> {
    scenario("cron", |s| {
        let command = ["create", "cronjob", "tick", "--schedule=* * * * *", "--image", BUSYBOX, "--"];
        s.kubectl(&[&command as &[&str], &["echo", "tick"]].concat())?;
        s.kubectl(&["create", "job", "by-hand", "--from=cronjob/tick"])?;
        s.wait("job/by-hand", "condition=Complete")?;
        assert_eq!(s.kubectl(&["logs", "job/by-hand"])?, "tick");
        let scheduled = || s.field("cronjob/tick", "{.status.lastSuccessfulTime}");
        s.until(scheduled, |time| !time.is_empty()).map(drop)
    })
}
