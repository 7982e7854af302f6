//! Berth's own service beside CRI, package `berth.admin.v1`: generated from admin/admin.proto.

/// The generated package.
pub mod v1 {
    #![allow(clippy::all, clippy::too_many_lines, missing_docs)]
    tonic::include_proto!("berth.admin.v1");
}

/// Largest `ImportChunk.data` in bytes.
pub const CHUNK_MAX: usize = 1 << 20;

/// Shows who logs in, never with what.
impl std::fmt::Debug for v1::Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn debug_of_credentials_shows_no_secret() {
        let credentials = super::v1::Credentials { username: "ann".into(), password: "s3cret".into() };
        let request = super::v1::PullRequest { credentials: Some(credentials), ..Default::default() };
        let text = format!("{request:?}");
        assert!(text.contains("ann") && !text.contains("s3cret"), "{text}");
    }
}
