//! Adapts a configuration from `envoy/` to a local stack: by structure, not by text, so that what runs is what ships.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::envoy_variant::Variant;

/// What a gateway of a local stack changes in a shipped configuration.
#[derive(Debug, Clone)]
pub struct Rendering {
    /// The shipped configuration.
    pub template: PathBuf,
    /// The port for clients, on 127.0.0.1.
    pub port: u16,
    /// Envoy's admin port, on 127.0.0.1.
    pub admin_port: u16,
    /// The port of the listener for load balancers, on 127.0.0.1, where the template has one.
    pub health_port: u16,
    /// The backends' public ports: cluster `origin`.
    pub origin_ports: Vec<u16>,
    /// The backends' operations ports: cluster `control`, which a configuration without sync does not have.
    pub control_ports: Vec<u16>,
    /// The filter module.
    pub filter_wasm: PathBuf,
    /// Merged into the plugin configuration (RFC 7396: null removes); `{}` changes nothing.
    pub plugin: Value,
    /// What else differs from the template.
    pub variant: Variant,
}

impl Rendering {
    /// The configuration that Envoy gets.
    ///
    /// # Errors
    /// When the template cannot be read or lacks one of the places to change.
    pub fn render(&self) -> anyhow::Result<Value> {
        let mut config = load(&self.template)?;
        let in_template = || format!("in {}", self.template.display());
        set_address(config.pointer_mut("/static_resources/listeners/0"), self.port).with_context(in_template)?;
        set_address(config.pointer_mut("/admin"), self.admin_port).with_context(in_template)?;
        if let Some(health) = listener(&mut config, "health") {
            set_address(Some(health), self.health_port).with_context(in_template)?;
        }
        set_endpoints(&mut config, "origin", &self.origin_ports).with_context(in_template)?;
        set_checked_ports(&mut config, "origin", &self.control_ports);
        if !self.control_ports.is_empty() || cluster(&mut config, "control").is_some() {
            set_endpoints(&mut config, "control", &self.control_ports).with_context(in_template)?;
        }
        ensure!(set_filter_wasm(&mut config, &self.filter_wasm) > 0, "no wasm filter in {}", self.template.display());
        merge_plugin_config(&mut config, &self.plugin).with_context(in_template)?;
        self.variant.apply(&mut config).with_context(in_template)?;
        Ok(config)
    }
}

/// Reads a YAML configuration as Envoy does: only `true` and `false` are booleans.
///
/// # Errors
/// When it cannot be read or is not YAML.
pub fn load(path: &Path) -> anyhow::Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(&text, options).with_context(|| format!("{} is not YAML", path.display()))
}

/// Points every wasm plugin that is loaded from a file to this one; how many there were.
pub fn set_filter_wasm(config: &mut Value, wasm: &Path) -> usize {
    let mut changed = 0;
    for_each_object(config, &mut |object| {
        if let Some(filename) = object.get_mut("vm_config").and_then(|vm| vm.pointer_mut("/code/local/filename")) {
            *filename = json!(wasm);
            changed += 1;
        }
    });
    changed
}

pub(crate) fn set_address(holder: Option<&mut Value>, port: u16) -> anyhow::Result<()> {
    let address = holder
        .and_then(|holder| holder.pointer_mut("/address/socket_address"))
        .context("no listener or admin address")?;
    *address = json!({ "address": "127.0.0.1", "port_value": port });
    Ok(())
}

fn set_endpoints(config: &mut Value, name: &str, ports: &[u16]) -> anyhow::Result<()> {
    let endpoints = ports
        .iter()
        .map(|port| json!({ "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } } }))
        .collect::<Vec<_>>();
    let assignment = cluster(config, name)
        .with_context(|| format!("no cluster {name}"))?
        .pointer_mut("/load_assignment/endpoints/0/lb_endpoints")
        .with_context(|| format!("cluster {name} has no endpoints"))?;
    *assignment = Value::Array(endpoints);
    Ok(())
}

/// Each endpoint's health is asked at the operations port that belongs to it. One that has none is not checked.
fn set_checked_ports(config: &mut Value, name: &str, control_ports: &[u16]) {
    let Some(cluster) = cluster(config, name).filter(|cluster| cluster.get("health_checks").is_some()) else { return };
    let endpoints = cluster.pointer_mut("/load_assignment/endpoints/0/lb_endpoints").and_then(Value::as_array_mut);
    for (at, endpoint) in endpoints.into_iter().flatten().enumerate() {
        let check = match control_ports.get(at) {
            Some(port) => json!({ "port_value": port }),
            None => json!({ "disable_active_health_check": true }),
        };
        if let Some(endpoint) = endpoint.get_mut("endpoint").and_then(Value::as_object_mut) {
            endpoint.insert("health_check_config".to_owned(), check);
        }
    }
}

fn listener<'a>(config: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let listeners = config.pointer_mut("/static_resources/listeners")?.as_array_mut()?;
    listeners.iter_mut().find(|candidate| candidate.get("name") == Some(&json!(name)))
}

fn cluster<'a>(config: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let clusters = config.pointer_mut("/static_resources/clusters")?.as_array_mut()?;
    clusters.iter_mut().find(|candidate| candidate.get("name") == Some(&json!(name)))
}

/// The plugin configuration is a JSON text in a `StringValue`, or a `Struct`.
pub(crate) fn merge_plugin_config(config: &mut Value, patch: &Value) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    for_each_object(config, &mut |object| {
        if !object.contains_key("vm_config") {
            return;
        }
        let Some(value) = object.get_mut("configuration").and_then(|configuration| configuration.get_mut("value"))
        else {
            return;
        };
        match value {
            Value::String(text) => match serde_json::from_str(text) {
                Ok(mut parsed) => {
                    merge(&mut parsed, patch);
                    *text = parsed.to_string();
                }
                Err(error) => outcome = Err(error).context("the plugin configuration is not JSON"),
            },
            structure => merge(structure, patch),
        }
    });
    outcome
}

pub(crate) fn for_each_object(value: &mut Value, visit: &mut impl FnMut(&mut serde_json::Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            object.values_mut().for_each(|child| for_each_object(child, visit));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| for_each_object(item, visit)),
        _ => {}
    }
}

/// JSON Merge Patch, RFC 7396.
pub(crate) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(object) = target {
        for (key, change) in changes {
            if change.is_null() {
                object.remove(key);
            } else {
                merge(object.entry(key.clone()).or_insert(Value::Null), change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_replaces_adds_and_removes() {
        let mut config = json!({ "a": { "b": 1, "c": 2 }, "d": [1] });
        merge(&mut config, &json!({ "a": { "b": 3, "c": null, "e": { "f": 4 } }, "d": [2] }));
        assert_eq!(config, json!({ "a": { "b": 3, "e": { "f": 4 } }, "d": [2] }));
    }

    #[test]
    fn plugin_configuration_is_merged_inside_its_text() {
        let mut config = json!({ "config": {
            "vm_config": { "code": { "local": { "filename": "/old.wasm" } } },
            "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "{\"credits\": {\"hold_ms\": 500}}" },
        }});
        merge_plugin_config(&mut config, &json!({ "credits": { "hold_ms": 50 } })).unwrap();
        assert_eq!(set_filter_wasm(&mut config, Path::new("/new.wasm")), 1);
        assert_eq!(config["config"]["configuration"]["value"], "{\"credits\":{\"hold_ms\":50}}");
        assert_eq!(config["config"]["vm_config"]["code"]["local"]["filename"], "/new.wasm");
    }

    #[test]
    fn a_missing_cluster_is_named() {
        let mut config = json!({ "static_resources": { "clusters": [{ "name": "origin" }] } });
        let error = set_endpoints(&mut config, "control", &[1]).unwrap_err();
        assert_eq!(error.to_string(), "no cluster control");
    }
}
