//! SELinux labels: of a container's processes, and of the files that its pod's processes may use. Containers of one pod
//! have one level, which no other pod shares. What does not live here: putting labels on.

use crate::containers::spec::{Security, SelinuxLabel};
use crate::ids::PodId;

/// A label that the kernel would refuse.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("SELinux {part} {text:?} is malformed")]
pub struct LabelError {
    /// user, role, type or level.
    pub part: &'static str,
    /// As given.
    pub text: String,
}

/// A malformed label is refused on every node: a pod must not start on one and fail on the next.
pub fn check(label: Option<&SelinuxLabel>) -> Result<(), LabelError> {
    let Some(label) = label else { return Ok(()) };
    for (part, text) in [("user", &label.user), ("role", &label.role), ("type", &label.kind)] {
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            return Err(LabelError { part, text: text.clone() });
        }
    }
    if !label.level.is_empty() && !is_level(&label.level) {
        return Err(LabelError { part: "level", text: label.level.clone() });
    }
    Ok(())
}

/// The level of a pod: as asked, else two of 1024 categories that follow from its random id, so that nothing has to be
/// remembered: one pair of half a million.
pub fn level(pod: &PodId, asked: Option<&SelinuxLabel>) -> String {
    if let Some(SelinuxLabel { level, .. }) = asked
        && !level.is_empty()
    {
        return level.clone();
    }
    let digits = pod.as_str().get(..8).unwrap_or_default();
    let random = u32::from_str_radix(digits, 16).unwrap_or_default();
    let first = random % CATEGORIES;
    let second = (first + 1 + random / CATEGORIES % (CATEGORIES - 1)) % CATEGORIES;
    format!("s0:c{},c{}", first.min(second), first.max(second))
}

const CATEGORIES: u32 = 1024;

/// The label of a container's processes, in a pod of this level. A privileged one is confined by nothing.
pub fn process(security: &Security, pod_level: &str) -> String {
    let none = SelinuxLabel::default();
    let label = security.selinux.as_ref().unwrap_or(&none);
    let (kind, level) = if security.privileged { ("spc_t", "s0") } else { ("container_t", pod_level) };
    let part = |given: &str, default: &str| {
        if given.is_empty() { default.to_string() } else { given.to_string() }
    };
    let (user, role) = (part(&label.user, "system_u"), part(&label.role, "system_r"));
    format!("{user}:{role}:{}:{}", part(&label.kind, kind), part(&label.level, level))
}

/// The label of files that processes of this level may use.
pub fn files(level: &str) -> String {
    format!("system_u:object_r:container_file_t:{level}")
}

/// `s0`, `s0-s1`, each with categories: `s0:c1,c5.c9`.
fn is_level(level: &str) -> bool {
    let number = |text: &str, letter: char| {
        let digits = text.strip_prefix(letter).unwrap_or_default();
        !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let one = |text: &str| match text.split_once(':') {
        None => number(text, 's'),
        Some((sensitivity, categories)) => {
            let range =
                |range: &str| range.split('.').count() <= 2 && range.split('.').all(|end| number(end, 'c'));
            number(sensitivity, 's') && categories.split(',').all(range)
        }
    };
    level.split('-').count() <= 2 && level.split('-').all(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(level: &str) -> SelinuxLabel {
        SelinuxLabel { level: level.into(), ..SelinuxLabel::default() }
    }

    #[test]
    fn levels_are_checked() {
        for level in ["", "s0", "s0:c1", "s0:c4,c5", "s0-s15:c0.c1023", "s0:c1.c3,c7"] {
            assert_eq!(check(Some(&label(level))), Ok(()), "{level}");
        }
        for level in
            ["s0,c4,c5", "s", "c1", "s0:", "s0:c", "s0-s1-s2", "s0:c1.c2.c3", "s0:c1,", "s0 ", "s0:c123456"]
        {
            assert!(check(Some(&label(level))).is_err(), "{level}");
        }
        let bad = SelinuxLabel { kind: "container_t:s0".into(), ..SelinuxLabel::default() };
        assert_eq!(check(Some(&bad)).unwrap_err().part, "type");
        assert_eq!(check(None), Ok(()));
    }

    #[test]
    fn pods_have_levels_of_their_own() {
        let pods: Vec<_> = (0..100).map(|_| PodId::generate()).collect();
        for pod in &pods {
            let own = level(pod, None);
            assert!(is_level(&own) && own == level(pod, Some(&label(""))), "{own}");
            let (first, second) = own.strip_prefix("s0:c").unwrap().split_once(",c").unwrap();
            let [first, second] = [first, second].map(|number| number.parse::<u32>().unwrap());
            assert!(first < second && second < CATEGORIES, "{own}");
        }
        assert_eq!(level(&pods[0], Some(&label("s0:c4,c5"))), "s0:c4,c5");
    }

    #[test]
    fn processes_run_as_container_t_unless_they_are_privileged_or_ask_for_more() {
        let of = |privileged, selinux| Security { privileged, selinux, ..Security::default() };
        let pod = "s0:c1,c2";
        assert_eq!(process(&of(false, None), pod), "system_u:system_r:container_t:s0:c1,c2");
        assert_eq!(process(&of(true, None), pod), "system_u:system_r:spc_t:s0");
        let asked = SelinuxLabel { kind: "mine_t".into(), ..label("s0:c9") };
        assert_eq!(process(&of(false, Some(asked)), pod), "system_u:system_r:mine_t:s0:c9");
        assert_eq!(files(pod), "system_u:object_r:container_file_t:s0:c1,c2");
    }
}
