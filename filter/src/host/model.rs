//! Shared data as Envoy keeps it, for tests: one map behind one lock, a number per change, no delete.

use std::cell::RefCell;
use std::collections::HashMap;

use super::{Changed, SharedData, Versioned};

/// Envoy's shared data with the semantics seen on Envoy 1.40: a compare-and-swap on a missing key creates it.
#[derive(Debug, Clone, Default)]
pub struct Model {
    values: RefCell<HashMap<String, Versioned>>,
    last_cas: RefCell<u32>,
}

impl Model {
    /// The raw call: `cas` 0 always writes.
    pub fn set(&self, key: &str, value: &[u8], cas: u32) -> Result<(), Changed> {
        let mut values = self.values.borrow_mut();
        if let Some((_, current)) = values.get(key)
            && cas != 0
            && cas != *current
        {
            return Err(Changed);
        }
        let mut last = self.last_cas.borrow_mut();
        *last += 1;
        values.insert(key.to_owned(), (value.to_vec(), *last));
        Ok(())
    }

    /// How many keys there are; they are never deleted.
    pub fn keys(&self) -> usize {
        self.values.borrow().len()
    }
}

impl SharedData for Model {
    fn get(&self, key: &str) -> Option<Versioned> {
        self.values.borrow().get(key).cloned()
    }

    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed> {
        self.set(key, value, seen)
    }

    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed> {
        self.set(key, value, u32::MAX)
    }
}

impl doorbuster_probe::Calls for Model {
    fn get(&self, key: &str) -> Option<Versioned> {
        SharedData::get(self, key)
    }

    fn set(&self, key: &str, value: &[u8], cas: u32) -> bool {
        Model::set(self, key, value, cas).is_ok()
    }
}

/// A real Envoy answers it, too: `e2e/tests/it/shared_data.rs`.
#[test]
fn the_model_answers_the_table_that_envoy_answers() {
    let transcript = doorbuster_probe::play(doorbuster_probe::CASES, "", &Model::default());
    assert_eq!(transcript, doorbuster_probe::CASES);
}

#[test]
fn a_value_is_created_once_and_replaced_only_unchanged() {
    let model = Model::default();
    assert_eq!(model.get("k"), None);
    assert_eq!(model.create("k", b"1"), Ok(()));
    assert_eq!(model.create("k", b"2"), Err(Changed));
    let (value, seen) = model.get("k").unwrap();
    assert_eq!(value, b"1");
    assert_eq!(model.replace("k", b"2", seen), Ok(()));
    assert_eq!(model.replace("k", b"3", seen), Err(Changed));
    assert_eq!(model.get("k").unwrap().0, b"2");
}
