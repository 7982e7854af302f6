//! What is executed, and where. What does not live here: its environment.

use std::path::{Path, PathBuf};

use super::{Inputs, SpecError};

/// The kernel's own limit for arguments and environment together, whatever the stack's limit (exec.c, 3/4 of 8 MiB).
pub(super) const MOST: usize = 6 << 20;
/// Bytes of a path, without the NUL at its end (limits.h).
const PATH_MAX: usize = 4095;

/// Command and arguments over entrypoint and cmd, as Kubernetes documents it: a command replaces both, arguments
/// replace the image's cmd.
pub(super) fn args(inputs: &Inputs<'_>) -> Result<Vec<String>, SpecError> {
    let (container, image) = (inputs.container, inputs.image);
    let (head, tail) = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => (&container.command, &container.args),
        (true, false) => (&image.entrypoint, &container.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let args: Vec<String> = head.iter().chain(tail).cloned().collect();
    if args.first().is_none_or(String::is_empty) {
        let image = match container.user_specified_image.as_str() {
            "" => container.image.clone(),
            name => name.to_string(),
        };
        return Err(SpecError::NoCommand { image });
    }
    checked(args)
}

/// Arguments without NUL bytes.
pub(super) fn checked(args: Vec<String>) -> Result<Vec<String>, SpecError> {
    match args.iter().position(|arg| arg.contains('\0')) {
        Some(index) => Err(SpecError::Argument { index }),
        None => Ok(args),
    }
}

/// Whether the kernel would take both, pointers included (execve(2)).
pub(super) fn check_size(args: &[String], env: &[String]) -> Result<(), SpecError> {
    let size = args.iter().chain(env).map(|text| text.len() + 1 + size_of::<usize>()).sum();
    if size > MOST { Err(SpecError::TooLarge { size }) } else { Ok(()) }
}

/// The container's working directory, else the image's, else `/`.
pub(super) fn working_dir(inputs: &Inputs<'_>) -> Result<PathBuf, SpecError> {
    let given = [&inputs.container.working_dir, &inputs.image.working_dir];
    let path = given.into_iter().find(|path| !path.is_empty()).map_or("/", String::as_str);
    // An image may say `WORKDIR app`; builders write it absolute, and from `/` it is the same.
    let path = if path == inputs.image.working_dir && !path.starts_with('/') {
        format!("/{path}")
    } else {
        path.to_string()
    };
    if !Path::new(&path).is_absolute() || path.contains('\0') {
        return Err(SpecError::WorkingDir { path });
    }
    if path.len() > PATH_MAX {
        return Err(SpecError::LongWorkingDir { length: path.len() });
    }
    Ok(PathBuf::from(path))
}
