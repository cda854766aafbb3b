//! Other shapes of the shipped configuration: what meshes generate, and several listeners in one Envoy.

use anyhow::Context;
use serde_json::{Value, json};

use crate::envoy_config::{for_each_object, merge_plugin_config, set_address};

/// The name that Istio gives to a service's port.
const MESH_CLUSTER: &str = "outbound|8001||backend.shop.svc.cluster.local";

/// How a gateway's configuration differs from the shipped one.
#[derive(Debug, Clone, Default)]
pub enum Variant {
    /// Not at all.
    #[default]
    Shipped,
    /// As Istio's `WasmPlugin` and Envoy Gateway's `EnvoyExtensionPolicy` have it: the filter is disabled in the connection
    /// manager and enabled per route, the headers cannot be stopped alone, a trapped VM is not reloaded, and the cluster
    /// has a generated name.
    Mesh {
        /// Empty at Istio, derived from the policy at Envoy Gateway.
        vm_id: String,
    },
    /// With a second listener.
    SecondListener {
        /// Its port, on 127.0.0.1.
        port: u16,
        /// Merged into its plugin configuration.
        plugin: Value,
    },
}

impl Variant {
    /// Changes a rendered configuration.
    ///
    /// # Errors
    /// When it lacks one of the places to change.
    pub(crate) fn apply(&self, config: &mut Value) -> anyhow::Result<()> {
        match self {
            Self::Shipped => Ok(()),
            Self::Mesh { vm_id } => as_mesh(config, vm_id),
            Self::SecondListener { port, plugin } => {
                let listeners = config.pointer_mut("/static_resources/listeners").and_then(Value::as_array_mut);
                let listeners = listeners.context("no listeners")?;
                let mut second = listeners.first().context("no listener")?.clone();
                set_address(Some(&mut second), *port)?;
                if let Some(name) = second.get_mut("name") {
                    *name = json!("second");
                }
                merge_plugin_config(&mut second, plugin)?;
                listeners.push(second);
                Ok(())
            }
        }
    }
}

fn as_mesh(config: &mut Value, vm_id: &str) -> anyhow::Result<()> {
    for_each_object(config, &mut |object| {
        if object.get("name") == Some(&json!("control")) {
            object.insert("name".to_owned(), json!(MESH_CLUSTER));
        }
        if object.get("cluster_name") == Some(&json!("control")) {
            object.insert("cluster_name".to_owned(), json!(MESH_CLUSTER));
        }
        if let Some(vm) = object.get_mut("vm_config").and_then(Value::as_object_mut) {
            vm.insert("vm_id".to_owned(), json!(vm_id));
            object.remove("failure_policy");
            object.remove("allow_on_headers_stop_iteration");
        }
        if object.get("name") == Some(&json!("doorbuster")) && object.contains_key("typed_config") {
            object.insert("disabled".to_owned(), json!(true));
        }
        if object.get("route").is_some_and(|route| route.get("cluster") == Some(&json!("origin"))) {
            let filters = object.entry("typed_per_filter_config").or_insert_with(|| json!({}));
            filters["doorbuster"] = json!({
                "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {},
            });
        }
    });
    merge_plugin_config(config, &json!({"bodies": "ignore", "sync": {"cluster": MESH_CLUSTER}}))
}
