//! How a kubelet's unit starts it, and the drop-in that gives it another runtime. Text in, text out.
//!
//! Every distribution hands the runtime's socket to the kubelet in a way of its own: kubeadm in /var/lib/kubelet, nodeadm (EKS)
//! in /etc/kubernetes/kubelet, AKS in variables of drop-ins; some write theirs anew at each boot. But a flag at the end of
//! the command line wins over all of these, so the last ExecStart= is repeated with one more flag, in a file that is read last.

use std::path::{Path, PathBuf};

use super::NodeError;

/// Where runtimes are that the kubelet's command line does not name.
const USUAL: &str = "/run/containerd/containerd.sock";

/// The one ExecStart= in force after all files of a unit, in systemd's order; variables and specifiers stay as they are.
pub(super) fn exec_start(unit: &str, texts: &[String]) -> Result<String, NodeError> {
    let mut found: Vec<String> = Vec::new();
    for text in texts {
        for (key, value) in settings(text) {
            match (key.as_str(), value.is_empty()) {
                ("ExecStart", true) => found.clear(),
                ("ExecStart", false) => found.push(value),
                _ => {}
            }
        }
    }
    let refuse = |why: String| Err(NodeError::Kubelet { unit: unit.into(), why });
    match found.as_slice() {
        [] => refuse("it has no ExecStart=".into()),
        [command] => {
            let program = command.trim_start_matches(['-', '+', '!', ':', '@', '|']);
            let program = program.split_whitespace().next().unwrap_or_default().trim_matches(['"', '\'']);
            match Path::new(program).file_name().is_some_and(|name| name == "kubelet") {
                true => Ok(command.clone()),
                false => refuse(format!("it starts {program}, which is no kubelet")),
            }
        }
        _ => refuse("it has several ExecStart=".into()),
    }
}

/// `KEY=VALUE` of the section Service, lines that go on joined.
fn settings(text: &str) -> Vec<(String, String)> {
    let (mut service, mut settings, mut begun) = (false, Vec::new(), String::new());
    for line in text.lines() {
        let line = line.trim();
        let comment = line.starts_with(['#', ';']);
        if comment || (begun.is_empty() && line.is_empty()) {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            begun.push_str(part);
            begun.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut begun) + line;
        if whole.starts_with('[') {
            service = whole == "[Service]";
        } else if let Some((key, value)) = whole.split_once('=').filter(|_| service) {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

/// The drop-in: the same command with Berth's socket.
pub(super) fn drop_in(command: &str, socket: &Path) -> String {
    let endpoint = format!("unix://{}", socket.display());
    format!(
        "# Written by `berth node`, which removes it again: the kubelet's own command line with Berth's socket.\n\
         [Unit]\nWants=berth.service\nAfter=berth.service\n\n[Service]\nExecStart=\n\
         ExecStart={command} --container-runtime-endpoint={endpoint} --image-service-endpoint={endpoint}\n"
    )
}

/// The socket that a running kubelet talks to. `words`: its command line; `read`: how its files are read.
pub(super) fn endpoint(words: &[String], read: impl Fn(&Path) -> Option<String>) -> PathBuf {
    let flag = |name: &str| {
        let mut values = words.iter().enumerate().filter_map(|(number, word)| {
            match word.trim_start_matches('-').split_once('=') {
                Some((key, value)) if key == name => Some(value.to_owned()),
                None if word.trim_start_matches('-') == name => words.get(number + 1).cloned(),
                _ => None,
            }
        });
        values.next_back()
    };
    let configured = || {
        let text = read(Path::new(&flag("config")?))?;
        // YAML or JSON: in both the key's value is on its line.
        let line = text.lines().find_map(|line| line.split_once("containerRuntimeEndpoint"))?.1;
        let value = line.trim_start_matches(['"', ' ', ':']).trim_end_matches([',', '}', ' ', '"', '\'']);
        Some(value.trim_matches(['"', '\'']).to_owned()).filter(|value| !value.is_empty())
    };
    let named = flag("container-runtime-endpoint").or_else(configured);
    let path = named.unwrap_or_else(|| USUAL.into());
    PathBuf::from(path.strip_prefix("unix://").unwrap_or(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBEADM: &str =
        "[Unit]\nDescription=kubelet\n[Service]\nExecStart=/usr/bin/kubelet\nRestart=always\n";
    const KUBEADM_CONF: &str = "# Note: this works with kubeadm\n[Service]\n\
        Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"\n\
        EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nExecStart=\n\
        ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS\n";
    const AKS: &str = "[Service]\nEnvironmentFile=/etc/default/kubelet\nExecStartPre=/bin/mkdir -p /var/lib/kubelet\n\
        ExecStart=/usr/local/bin/kubelet \\\n        --enable-server \\\n   # a comment between\n\
        \x20       --node-labels=\"${KUBELET_NODE_LABELS}\" \\\n        $KUBELET_FLAGS $KUBELET_CONTAINERD_FLAGS\n\n[Install]\nExecStart=/no\n";

    fn found(texts: &[&str]) -> Result<String, String> {
        let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
        exec_start("kubelet.service", &texts).map_err(|error| error.to_string())
    }

    #[test]
    fn the_last_command_of_a_unit_counts() {
        assert_eq!(
            found(&[KUBEADM, KUBEADM_CONF]).unwrap(),
            "/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS"
        );
        let aks = found(&[AKS]).unwrap();
        let words: Vec<_> = aks.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "/usr/local/bin/kubelet",
                "--enable-server",
                "--node-labels=\"${KUBELET_NODE_LABELS}\"",
                "$KUBELET_FLAGS",
                "$KUBELET_CONTAINERD_FLAGS"
            ]
        );
    }

    #[test]
    fn what_is_no_kubelet_is_refused() {
        let refused = [
            ("[Service]\nExecStart=/bin/sh -c 'exec kubelet'\n", "it starts /bin/sh, which is no kubelet"),
            ("[Service]\nRestart=always\n", "it has no ExecStart="),
            ("[Service]\nExecStart=/a/kubelet\nExecStart=/b/kubelet\n", "it has several ExecStart="),
        ];
        for (text, why) in refused {
            let error = found(&[text]).unwrap_err();
            assert!(error.contains(why) && error.contains("kubelet.service"), "{error}");
        }
        assert_eq!(found(&["[Service]\nExecStart=-/usr/bin/kubelet x"]).unwrap(), "-/usr/bin/kubelet x");
    }

    #[test]
    fn the_drop_in_repeats_the_command_with_one_more_flag() {
        let text = drop_in("/usr/bin/kubelet $ARGS", Path::new("/run/berth/berth.sock"));
        let flags = "--container-runtime-endpoint=unix:///run/berth/berth.sock --image-service-endpoint=unix:///run/berth/berth.sock";
        assert_eq!(found(&[KUBEADM, &text]).unwrap(), format!("/usr/bin/kubelet $ARGS {flags}"));
        assert!(text.contains("After=berth.service"), "{text}");
    }

    #[test]
    fn the_old_runtime_is_found_wherever_it_is_named() {
        let words = |line: &str| line.split(' ').map(String::from).collect::<Vec<_>>();
        let yaml = |_: &Path| {
            Some("kind: KubeletConfiguration\ncontainerRuntimeEndpoint: \"unix:///run/y.sock\"\n".into())
        };
        let json =
            |_: &Path| Some("{\n  \"containerRuntimeEndpoint\": \"unix:///run/j.sock\",\n \"a\": 1}".into());
        let none = |_: &Path| None;
        let socket = |path: PathBuf| path.to_string_lossy().into_owned();
        assert_eq!(socket(endpoint(&words("kubelet --config=/c"), yaml)), "/run/y.sock");
        assert_eq!(socket(endpoint(&words("kubelet --config /c"), json)), "/run/j.sock");
        let flag = words("kubelet --config=/c --container-runtime-endpoint unix:///run/f.sock");
        assert_eq!(socket(endpoint(&flag, yaml)), "/run/f.sock");
        assert_eq!(socket(endpoint(&words("kubelet --config=/c"), none)), USUAL);
        assert_eq!(
            socket(endpoint(&words("kubelet --container-runtime-endpoint=/run/p.sock"), none)),
            "/run/p.sock"
        );
    }
}
