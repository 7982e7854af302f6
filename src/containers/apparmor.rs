//! Which AppArmor profile a container gets. What does not live here: what the kernel knows (drivers/apparmor).

use crate::containers::spec::{AppArmor, Security};
use crate::drivers::apparmor::{Apparmor, DEFAULT};

/// Why a container can't be confined as asked; it must not start then.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// A profile that the kernel does not have.
    #[error("AppArmor profile {0:?} is not loaded on this node")]
    NotLoaded(String),
    /// A profile without AppArmor.
    #[error("AppArmor profile {0:?} was asked for, but AppArmor is not enabled on this node")]
    Off(String),
}

/// The profile to run under; None leaves the container unconfined. Where Berth's own can't be loaded, containers run without
/// it, as on a kernel without AppArmor: `berth check` and the log of the daemon say so.
pub fn profile(apparmor: &Apparmor, security: &Security) -> Result<Option<String>, ProfileError> {
    match (&security.apparmor, apparmor) {
        (AppArmor::Unconfined, _) | (AppArmor::RuntimeDefault, Apparmor::Off) => Ok(None),
        (AppArmor::RuntimeDefault, Apparmor::On { default }) => {
            Ok((default.is_ok() && !security.privileged).then(|| DEFAULT.to_string()))
        }
        (AppArmor::Localhost(profile), Apparmor::Off) => Err(ProfileError::Off(profile.clone())),
        (AppArmor::Localhost(profile), known) if known.knows(profile) => Ok(Some(profile.clone())),
        (AppArmor::Localhost(profile), _) => Err(ProfileError::NotLoaded(profile.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::apparmor::ApparmorError;

    #[test]
    fn the_default_is_for_the_unprivileged_and_what_is_not_loaded_is_refused() {
        let on = Apparmor::On { default: Ok(()) };
        let lame = Apparmor::On { default: Err(ApparmorError::NoParser) };
        let of = |apparmor: &Apparmor, asked: &AppArmor, privileged| {
            profile(apparmor, &Security { privileged, apparmor: asked.clone(), ..Security::default() })
        };
        let (default, mine) = (AppArmor::RuntimeDefault, AppArmor::Localhost("no such profile".into()));
        assert_eq!(of(&on, &default, false), Ok(Some(DEFAULT.to_string())));
        assert_eq!(of(&on, &default, true), Ok(None));
        assert_eq!(of(&on, &AppArmor::Unconfined, false), Ok(None));
        for apparmor in [&lame, &Apparmor::Off] {
            assert_eq!(of(apparmor, &default, false), Ok(None));
        }
        for privileged in [false, true] {
            assert_eq!(of(&on, &mine, privileged), Err(ProfileError::NotLoaded("no such profile".into())));
            assert_eq!(
                of(&Apparmor::Off, &mine, privileged),
                Err(ProfileError::Off("no such profile".into()))
            );
        }
    }
}
