//! STUB
use serde::{Deserialize,Serialize};
#[derive(Clone, Debug, Default, PartialEq, Deserialize)] #[serde(default)] pub struct CniConfig{pub conf_dir: std::path::PathBuf}
#[derive(Clone, Debug, Default, PartialEq, Deserialize)] #[serde(default)] pub struct BuiltInConfig{}
pub struct Network;
pub struct PodNetwork { pub id: crate::ids::PodId, pub name: String, pub namespace: String, pub uid: String, pub netns: std::path::PathBuf, pub ports: Vec<crate::pods::spec::PortMapping>, pub dns: Option<crate::pods::spec::Dns>, pub annotations: std::collections::BTreeMap<String,String>, pub cgroup_parent: String }
#[derive(Clone,Debug,Serialize,Deserialize)] pub struct Attachment{pub ips:Vec<std::net::IpAddr>}
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct NetworkError;
impl NetworkError { pub fn kind(&self)->crate::error::Kind { crate::error::Kind::Internal } }
pub struct NotReady{pub reason:String,pub message:String}
impl Network { pub async fn open(_:CniConfig,_:BuiltInConfig,_:std::sync::Arc<crate::drivers::store::Store>)->Result<Self,NetworkError>{Ok(Self)}
pub async fn attach(&self,_:&PodNetwork,_:std::os::fd::BorrowedFd<'_>)->Result<Attachment,NetworkError>{Ok(Attachment{ips:vec![]})}
pub async fn detach(&self,_:&PodNetwork,_:Option<&Attachment>)->Result<(),NetworkError>{Ok(())}
pub async fn status(&self)->Result<(),NotReady>{Ok(())}
pub async fn reconcile(&self,_:&std::collections::HashSet<crate::ids::PodId>){}
pub async fn set_pod_cidr(&self,_:&str)->Result<(),NetworkError>{Ok(())} }
pub mod resolv { 
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct ResolvError;
pub fn resolv_conf(_:&crate::pods::spec::Dns)->Result<String,ResolvError>{Ok(String::new())}
pub fn host_resolv_conf()->std::io::Result<String>{Ok(String::new())}
pub fn hosts(_:&str,_:&[std::net::IpAddr])->Result<String,ResolvError>{Ok(String::new())} }
