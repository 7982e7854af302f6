//! docs/configure.md: every key with its type, default and meaning, made of the default configuration, which other tests
//! hold to the code. `UPDATE=1 cargo test -p berth --lib config::reference` writes it anew.

use std::fmt::Write;

use toml::{Table, Value};

use super::{DEFAULT, duration};

const HEAD: &str = "# Configure

Berth reads `/etc/berth/config.toml`, or what `berth serve --config FILE` names. Every key may be left out, and so may the file.
A key that Berth does not know is refused, and so is a value that cannot work: `berth check` reads the file as the daemon does, and
says in which line and column a mistake is. A change takes effect when the daemon is started again (`systemctl restart berth`);
pods run on meanwhile.

`berth config default` prints a file with every key, its default and the comments that stand here. `berth config import` makes one of
a configuration of containerd or CRI-O ([from containerd](migrate-from-containerd.md), [from CRI-O](migrate-from-crio.md)).
`crictl info` shows the values in force below `config.effective`.

Directories, the socket and the level of the log are no part of the file but flags of the daemon: `--root` (/var/lib/berth), `--state`
(/run/berth), `--socket` (berth.sock in the state directory), `--log` or `BERTH_LOG` (`info`; `debug` or `berth=debug` say more).

<!-- Made by a test of src/config/reference.rs: UPDATE=1 cargo test -p berth --lib config::reference -->
";

const TAIL: &str = "
## Registries: hosts.toml
A registry's own settings stand in HOST/hosts.toml below `config_path` of `[registry]`, in containerd's format; containerd and Berth can share the directory. `HOST` is
what image names begin with (`docker.io`, `registry.example:5000`), and `_default` stands for all others. Mirrors are asked in the order of the file, the server last.

```toml
# /etc/berth/certs.d/docker.io/hosts.toml
server = \"https://registry-1.docker.io\"

[host.\"https://mirror.example\"]
  capabilities = [\"pull\", \"resolve\"]
  ca = \"/etc/ssl/mirror.pem\"
```
| key | meaning |
|---|---|
| `server` | the registry itself, asked last |
| `capabilities` | `pull`: layers and manifests by digest; `resolve`: tags, too |
| `ca` | PEM file, or a list, of who vouches for the host; relative to the directory |
| `client` | PEM of a certificate and its key, `[[cert, key]]` |
| `skip_verify` | trust any certificate |
| `header` | a table of headers to send |
| `override_path` | the URL has the API's prefix (`/v2`) already |

Instead of the file the directory may hold certificates as Docker and CRI-O have them: `*.crt` of authorities, `NAME.cert` and `NAME.key` of ours.

Credentials come from imagePullSecrets or the kubelet's credential providers, and go to the registry itself only.

## Registries: registries.conf and auth.json
For nodes that come from CRI-O, `registries_conf_path` names a file of containers-registries.conf(5), version 2; its drop-ins are read, too. The entry with the longest prefix of an
image's name decides whom the image is asked of, and hosts.toml files decide for images without an entry. All of `prefix`, `location`, `insecure`, `blocked`, `mirror`,
`mirror-by-digest-only` and `pull-from-mirror` count; prefixes with a tag or a digest are refused. Certificates are taken from the directory of the host below `config_path`, which may be
`/etc/containers/certs.d`. A name without a registry is Docker Hub's; where the file means another image by it (an alias, or another registry that comes first in
`unqualified-search-registries`), it is refused with the name to write instead.

`auth_file` names a file of containers-auth.json(5), or Docker's config.json. Its most specific entry for a host and repository counts where a pull brings no credentials for that host; mirrors
find theirs there, too. Programs (`credHelpers`, `credsStore`) are not run: a pull that needs one is refused by the program's name.

`berth image explain IMAGE` tells for an image which hosts would be asked, in which order, from which file, and where the credentials would come from. It asks neither daemon nor registry.
";

/// A key, and the comment above it.
struct Key<'a> {
    name: &'a str,
    default: Value,
    meaning: String,
}

#[derive(Default)]
struct Section<'a> {
    name: &'a str,
    meaning: String,
    keys: Vec<Key<'a>>,
}

/// The parts of the default text: comments belong to the key or section right below them.
fn sections() -> Vec<Section<'static>> {
    let mut sections = Vec::new();
    let mut comment = String::new();
    for line in DEFAULT.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            sections.push(Section { name, meaning: std::mem::take(&mut comment), keys: Vec::new() });
        } else if let (Some((name, default)), Some(section)) = (key(line), sections.last_mut()) {
            let meaning = match std::mem::take(&mut comment) {
                none if none.is_empty() => "As above.".to_string(),
                comment => comment,
            };
            section.keys.push(Key { name, default, meaning });
        } else if let Some(text) = line.strip_prefix("# ") {
            comment.push_str(if comment.is_empty() { "" } else { " " });
            comment.push_str(text);
        } else {
            comment.clear();
        }
    }
    sections
}

/// `# key = value`
fn key(line: &'static str) -> Option<(&'static str, Value)> {
    let (name, value) = line.strip_prefix("# ")?.split_once(" = ")?;
    let table: Table = format!("key = {value}").parse().ok()?;
    let bare = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    bare.then(|| table.get("key").cloned()).flatten().map(|value| (name, value))
}

fn kind(key: &Key<'_>) -> &'static str {
    let is_path = ["_path", "_dir", "_file", "path"].iter().any(|end| key.name.ends_with(end));
    match &key.default {
        Value::String(text) if duration::parse(text).is_some() => "duration",
        Value::String(_) if is_path => "path",
        Value::String(_) => "text",
        Value::Integer(_) => "number",
        Value::Float(_) => "fraction",
        Value::Boolean(_) => "true or false",
        Value::Array(_) if key.name.ends_with("_dirs") => "list of paths",
        Value::Array(_) => "list of texts",
        _ => "table",
    }
}

fn page() -> String {
    let mut text = HEAD.to_string();
    for section in sections() {
        let _ = writeln!(text, "\n## [{}]", section.name);
        if !section.meaning.is_empty() {
            let _ = writeln!(text, "{}", section.meaning);
        }
        let _ = writeln!(text, "\n| key | type | default | meaning |\n|---|---|---|---|");
        for key in &section.keys {
            let meaning = key.meaning.replace('|', "\\|");
            let _ = writeln!(text, "| `{}` | {} | `{}` | {meaning} |", key.name, kind(key), key.default);
        }
    }
    text + TAIL
}

#[test]
fn the_page_for_operators_says_what_the_code_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configure.md");
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/configure.md is stale: UPDATE=1 cargo test -p berth --lib config::reference"
    );
}

#[test]
fn every_key_of_the_default_text_has_a_row_with_a_meaning() {
    let keys: usize = sections().iter().map(|section| section.keys.len()).sum();
    let lines = DEFAULT.lines().filter(|line| key(line).is_some()).count();
    assert!(keys == lines && keys >= 20, "{keys} of {lines}");
    for section in sections() {
        assert!(section.keys.iter().all(|key| key.meaning.len() > 8), "[{}]", section.name);
    }
}
