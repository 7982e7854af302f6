//! The process of a container, and further processes in it. What does not live here: starting them.

use oci_spec::runtime as oci;

use super::{Inputs, SpecError, args, capabilities, env};

/// The first process.
pub(super) fn init_process(inputs: &Inputs<'_>) -> Result<oci::Process, SpecError> {
    let security = &inputs.container.security;
    let (args, env) = (args::args(inputs)?, env::env(inputs)?);
    args::check_size(&args, &env)?;
    let mut user = oci::User::default();
    user.set_uid(inputs.user.uid)
        .set_gid(inputs.user.gid)
        .set_additional_gids(Some(inputs.user.groups.clone()));
    let mut process = oci::Process::default();
    process
        .set_terminal(Some(inputs.container.tty))
        .set_user(user)
        .set_args(Some(args))
        .set_env(Some(env))
        .set_cwd(args::working_dir(inputs)?)
        .set_capabilities(Some(capabilities::capabilities(inputs)?))
        .set_rlimits(None)
        .set_no_new_privileges(Some(security.no_new_privs))
        .set_apparmor_profile(inputs.apparmor.map(str::to_string))
        .set_selinux_label(inputs.selinux.map(|labels| labels.process.clone()))
        .set_oom_score_adj(oom_score_adj(inputs)?);
    Ok(process)
}

fn oom_score_adj(inputs: &Inputs<'_>) -> Result<Option<i32>, SpecError> {
    match inputs.container.resources.oom_score_adj {
        Some(value) if !(-1000..=1000).contains(&value) => Err(SpecError::OomScoreAdj { value }),
        score => Ok(score),
    }
}

/// A further process in a running container: all is as the first process has it (pass that as `container`), but for
/// the command and the terminal.
pub fn exec_process(container: &oci::Process, cmd: &[String], tty: bool) -> Result<oci::Process, SpecError> {
    if cmd.first().is_none_or(String::is_empty) {
        return Err(SpecError::NoExecCommand);
    }
    let args = args::checked(cmd.to_vec())?;
    let mut env = container.env().clone().unwrap_or_default();
    if tty {
        env = env::with_terminal(env);
    }
    args::check_size(&args, &env)?;
    let mut process = container.clone();
    process.set_terminal(Some(tty)).set_console_size(None).set_args(Some(args)).set_env(Some(env));
    Ok(process)
}
