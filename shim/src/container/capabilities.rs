//! The five capability sets of a process, exactly as the spec has them, as far as the runtime itself holds them.

use berth_sys::capability::NAMES;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
};

use super::failure::{Failing, Result, SpawnError};
use super::spec;

pub(super) struct Capabilities {
    bounding: CapabilitySet,
    effective: CapabilitySet,
    permitted: CapabilitySet,
    inheritable: CapabilitySet,
    ambient: CapabilitySet,
}

impl Capabilities {
    pub(super) fn parse(sets: &spec::Capabilities) -> Result<Self> {
        Ok(Self {
            bounding: set(&sets.bounding)?,
            effective: set(&sets.effective)?,
            permitted: set(&sets.permitted)?,
            inheritable: set(&sets.inheritable)?,
            ambient: set(&sets.ambient)?,
        })
    }

    /// Drops from the bounding set what is not asked for; needs CAP_SETPCAP, thus comes before `put_on`.
    pub(super) fn bound(&self) -> Result<()> {
        for number in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The first number that this kernel does not have: there are no more.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error).failing(|| format!("drop capability {number}")),
            }
        }
        Ok(())
    }

    /// Takes the other four sets. A capability that the runtime itself lacks cannot be given and is left out.
    pub(super) fn put_on(&self) -> Result<()> {
        let step = || "set the capabilities".to_owned();
        let own = capabilities(None).failing(step)?.permitted;
        let permitted = self.permitted & own;
        let inheritable = self.inheritable & own & self.bounding;
        let sets = CapabilitySets { effective: self.effective & permitted, permitted, inheritable };
        set_capabilities(None, sets).failing(step)?;
        clear_ambient_capability_set().failing(step)?;
        for capability in (self.ambient & permitted & inheritable).iter() {
            configure_capability_in_ambient_set(capability, true).failing(step)?;
        }
        Ok(())
    }
}

fn set(names: &[String]) -> Result<CapabilitySet> {
    names.iter().try_fold(CapabilitySet::empty(), |set, name| {
        let number = NAMES.iter().position(|known| name.strip_prefix("CAP_") == Some(known));
        let unknown = || SpawnError::refused("set the capabilities", format!("unknown capability {name:?}"));
        Ok(set | CapabilitySet::from_bits_retain(1 << number.ok_or_else(unknown)?))
    })
}
