//! The JSON Schemas of events.

use std::collections::HashMap;
use std::path::Path;

use jsonschema::Validator;
use serde_json::Value;

/// The schemas in `docs/events`, by type of event.
pub(crate) struct Schemas(HashMap<String, (Value, Validator)>);

impl Schemas {
    pub(crate) fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/events");
        let mut schemas = HashMap::new();
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let Some(kind) = name.strip_suffix(".schema.json") else { continue };
            let schema: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
            schemas.insert(kind.to_owned(), (schema, validator));
        }
        Self(schemas)
    }

    /// Fails unless the event is as its schema says, and its data holds nothing that the schema does not tell of.
    pub(crate) fn check(&self, event: &Value) {
        let kind = event["type"].as_str().unwrap();
        let (schema, validator) = self.0.get(kind).unwrap_or_else(|| panic!("no schema for {kind}"));
        let errors: Vec<String> =
            validator.iter_errors(event).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{event:#}: {errors:?}");
        for (part, known) in [(event, schema), (&event["data"], &schema["properties"]["data"])] {
            for key in part.as_object().unwrap().keys() {
                assert!(known["properties"][key].is_object(), "{kind} has a {key} that its schema does not tell of");
            }
        }
    }
}
