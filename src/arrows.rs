//! A test, and nothing else: which folder may use which. ARCHITECTURE.md has the picture.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    /// A folder, and the folders of this crate that it must not use. Specs are vocabulary: everybody may use them.
    const FORBIDDEN: &[(&str, &[&str])] = &[
        ("src/telemetry", &["api", "cli", "daemon", "node", "pods", "containers", "images"]),
        ("src/drivers", &["api", "cli", "daemon", "node", "pods", "containers", "images"]),
        ("src/images", &["api", "cli", "daemon", "node", "pods", "containers"]),
        ("src/containers", &["api", "cli", "daemon", "node", "pods"]),
        ("src/pods", &["api", "cli", "daemon", "node"]),
        ("src/api", &["cli", "daemon", "node"]),
        // From the host's side Berth is a program and a socket.
        ("src/node", &["api", "cli", "daemon", "pods", "containers", "images"]),
    ];
    /// Types that lower folders may name: what was asked for, and what the drivers are given.
    const VOCABULARY: &[&str] = &[
        "pods::spec",
        "containers::spec",
        "containers::oci::DeviceRule",
        "images::image",
        "images::reference",
    ];

    fn sources(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.extend(sources(&path));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
        found
    }

    fn violations(folder: &str, forbidden: &[&str]) -> Vec<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for file in sources(&root.join(folder)) {
            let text = std::fs::read_to_string(&file).unwrap();
            for line in
                text.lines().filter(|line| line.contains("crate::") && !line.trim_start().starts_with("//"))
            {
                let used = line.split("crate::").skip(1);
                let bad = used.filter(|used| {
                    forbidden.iter().any(|folder| used.starts_with(&format!("{folder}::")))
                        && !VOCABULARY.iter().any(|word| used.starts_with(word))
                });
                found.extend(bad.map(|used| format!("{}: crate::{used}", file.display())));
            }
        }
        found
    }

    #[test]
    fn arrows_point_down_only() {
        let found: Vec<_> =
            FORBIDDEN.iter().flat_map(|(folder, forbidden)| violations(folder, forbidden)).collect();
        assert!(found.is_empty(), "{found:#?}");
    }

    #[test]
    fn cri_types_stay_at_the_edge() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["src/pods", "src/containers", "src/images", "src/drivers"] {
            for file in sources(&root.join(folder)) {
                let text = std::fs::read_to_string(&file).unwrap();
                assert!(!text.contains("berth_proto::cri"), "{} uses CRI types", file.display());
            }
        }
    }

    #[test]
    fn paths_are_joined_in_the_layout_only() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["src/pods", "src/containers", "src/images", "src/node"] {
            for file in sources(&root.join(folder)) {
                if file.components().any(|part| part.as_os_str() == "tests") {
                    continue;
                }
                let text = std::fs::read_to_string(&file).unwrap();
                // A list of words is no path.
                let code = text.split("#[cfg(test)]").next().unwrap_or_default().replace(".join(\", \")", "");
                assert!(!code.contains(".join(\""), "{} joins a literal", file.display());
            }
        }
    }
}
