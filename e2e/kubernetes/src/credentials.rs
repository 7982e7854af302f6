//! Who may speak to whom: one authority, certificates for servers and users, and kubeconfig files.

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::json;

use crate::directory::Directory;
use crate::machine::{ADDRESS, API};

/// Signs everything in the cluster.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: Directory,
}

impl Authority {
    /// Makes it, as `ca`.
    pub fn new(directory: &Directory) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate()?;
        std::fs::write(directory.key("ca"), key.serialize_pem())?;
        let issuer = CertifiedIssuer::self_signed(params, key)?;
        std::fs::write(directory.certificate("ca"), issuer.pem())?;
        Ok(Self { issuer, directory: directory.clone() })
    }

    /// Writes certificate and key of `name`, who is called `user` in `group` and serves at `hosts`.
    pub fn issue(&self, name: &str, (user, group): (&str, &str), hosts: &[&str]) -> Result<()> {
        let mut params =
            CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, user);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate()?;
        std::fs::write(self.directory.certificate(name), params.signed_by(&key, &self.issuer)?.pem())?;
        std::fs::write(self.directory.key(name), key.serialize_pem())?;
        Ok(())
    }

    /// As [`Self::issue`] for one who speaks to the API, with a kubeconfig.
    pub fn admit(&self, name: &str, user: (&str, &str)) -> Result<()> {
        self.issue(name, user, &[])?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "berth",
            "contexts": [{ "name": "berth", "context": { "cluster": "berth", "user": name } }],
            "clusters": [{
                "name": "berth",
                "cluster": {
                    "server": format!("https://{ADDRESS}"),
                    "certificate-authority": self.directory.certificate("ca"),
                },
            }],
            "users": [{
                "name": name,
                "user": {
                    "client-certificate": self.directory.certificate(name),
                    "client-key": self.directory.key(name),
                },
            }],
        });
        std::fs::write(self.directory.kubeconfig(name), config.to_string())?;
        Ok(())
    }
}

/// Everyone's, and the keys that sign the tokens of service accounts.
pub fn make(directory: &Directory, node: &str) -> Result<()> {
    let authority = Authority::new(directory)?;
    let names = [ADDRESS, API, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default.svc"];
    authority.issue("apiserver", ("kube-apiserver", "kubernetes"), &names)?;
    authority.issue("apiserver-kubelet", ("kube-apiserver", "system:masters"), &[])?;
    authority.issue("front-proxy-client", ("front-proxy-client", "kubernetes"), &[])?;
    authority.issue("kubelet-server", (node, "system:nodes"), &[ADDRESS, node])?;
    authority.admit("admin", ("admin", "system:masters"))?;
    authority.admit("kubelet", (&format!("system:node:{node}"), "system:nodes"))?;
    for name in ["kube-controller-manager", "kube-scheduler"] {
        authority.admit(name, (&format!("system:{name}"), "kubernetes"))?;
    }
    let signer = KeyPair::generate()?;
    std::fs::write(directory.key("service-accounts"), signer.serialize_pem())?;
    std::fs::write(directory.certificate("service-accounts"), signer.public_key_pem())?;
    Ok(())
}
