//! RuntimeClasses: what their handlers mean to the runtime, and what the scheduler makes of them.

use anyhow::{Context, Result};
use berth_e2e::runtime::Runtime;
use berth_e2e_kubernetes::isolation::NODE;
use berth_e2e_kubernetes::pods::{alone, sleeper, with};
use berth_e2e_kubernetes::scenario::{Scenario, scenario};
use serde_json::{Value, json};

/// One of the whole cluster, with the namespace's name. Dropping it deletes it.
struct Class<'a>(&'a Scenario);

impl<'a> Class<'a> {
    fn new(s: &'a Scenario, handler: &str, more: Value) -> Result<Self> {
        let class = json!({
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": { "name": s.namespace() },
            "handler": handler,
        });
        s.apply(&with(class, more).to_string())?;
        Ok(Self(s))
    }

    fn pod(&self) -> Value {
        with(alone(sleeper()), json!({ "runtimeClassName": self.0.namespace() }))
    }
}

impl Drop for Class<'_> {
    fn drop(&mut self) {
        let _ = self.0.kubectl(&["delete", "runtimeclass", self.0.namespace()]);
    }
}

#[test]
fn pods_of_a_class_for_runc_run_with_its_overhead() -> Result<()> {
    scenario("class-runc", |s| {
        let overhead = json!({ "overhead": { "podFixed": { "cpu": "10m", "memory": "1Mi" } } });
        let class = Class::new(s, "runc", overhead)?;
        s.start("classy", class.pod())?;
        assert_eq!(s.shell("classy", "echo here")?, "here");
        assert_eq!(s.field("pod/classy", "{.spec.overhead.memory}")?, "1Mi");
        let names = s.field(&format!("node/{NODE}"), "{.status.runtimeHandlers[*].name}")?;
        let names: Vec<_> = names.split_whitespace().collect();
        assert!(names.contains(&"runc"), "{names:?}");
        if Runtime::from_env()? == Runtime::Berth {
            assert_eq!(names, ["berth", "crun", "runc"]);
        }
        Ok(())
    })
}

#[test]
fn a_class_without_a_handler_is_refused_by_name() -> Result<()> {
    scenario("class-unknown", |s| {
        let class = Class::new(s, "no-such-runtime", json!({}))?;
        s.create("classy", class.pod())?;
        let message = s.event("classy", "FailedCreatePodSandBox")?;
        let known = match Runtime::from_env()? {
            Runtime::Berth => {
                r#"no runtime handler "no-such-runtime" on this node: only "", "berth", "crun", "runc""#
            }
            Runtime::Containerd => "no runtime for \"no-such-runtime\" is configured",
        };
        assert!(message.contains(known), "{message}");
        let nobody = with(alone(sleeper()), json!({ "runtimeClassName": "nobody-made-it" }));
        let refusal = s.create("none", nobody).err().context("a pod of a class that does not exist")?;
        assert!(format!("{refusal:#}").contains("nobody-made-it"), "{refusal:#}");
        Ok(())
    })
}
