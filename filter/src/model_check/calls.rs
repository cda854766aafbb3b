//! A worker's step, one call of shared data at a time.
//!
//! The code under test is ordinary code, and cannot be stopped between two calls. It can be run again: the answers it
//! has had are given to it once more, one further call is made in earnest, and at the call after that the run is
//! unwound. So each call is an event of its own, and any other worker's may come between.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::host::{Changed, SharedData, Versioned};

/// What a call answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Got(String, Option<Versioned>),
    Written(Result<(), Changed>),
}

/// Thrown to stop a run.
struct Stopped;

/// Shared data that answers as it did, then once in earnest, and then not at all.
struct Calls<'a> {
    shared: &'a dyn SharedData,
    answers: RefCell<Vec<Answer>>,
    replayed: Cell<usize>,
    made: Cell<bool>,
}

impl Calls<'_> {
    fn call(&self, earnest: impl FnOnce() -> Answer) -> Answer {
        let at = self.replayed.get();
        if let Some(answer) = self.answers.borrow().get(at) {
            self.replayed.set(at + 1);
            return answer.clone();
        }
        if self.made.replace(true) {
            resume_unwind(Box::new(Stopped));
        }
        let answer = earnest();
        self.answers.borrow_mut().push(answer.clone());
        self.replayed.set(at + 1);
        answer
    }

    fn write(&self, earnest: impl FnOnce() -> Result<(), Changed>) -> Result<(), Changed> {
        match self.call(|| Answer::Written(earnest())) {
            Answer::Written(written) => written,
            Answer::Got(..) => unreachable!("the run took another way"),
        }
    }
}

impl SharedData for Calls<'_> {
    fn get(&self, key: &str) -> Option<Versioned> {
        match self.call(|| Answer::Got(key.to_owned(), self.shared.get(key))) {
            Answer::Got(_, value) => value,
            Answer::Written(_) => unreachable!("the run took another way"),
        }
    }

    fn replace(&self, key: &str, value: &[u8], seen: u32) -> Result<(), Changed> {
        self.write(|| self.shared.replace(key, value, seen))
    }

    fn create(&self, key: &str, value: &[u8]) -> Result<(), Changed> {
        self.write(|| self.shared.create(key, value))
    }
}

/// Runs `step` one call further than `answers` go, which grow by that call's. None: it has more calls to make.
pub(super) fn one_call<T>(
    shared: &dyn SharedData,
    answers: &mut Vec<Answer>,
    step: impl FnOnce(&dyn SharedData) -> T,
) -> Option<T> {
    let calls = Calls {
        shared,
        answers: RefCell::new(std::mem::take(answers)),
        replayed: Cell::new(0),
        made: Cell::new(false),
    };
    let run = catch_unwind(AssertUnwindSafe(|| step(&calls)));
    *answers = calls.answers.into_inner();
    match run {
        Ok(result) => Some(result),
        Err(thrown) if thrown.is::<Stopped>() => None,
        Err(thrown) => resume_unwind(thrown),
    }
}

#[test]
fn a_step_goes_on_where_it_was_stopped() {
    let model = crate::host::model::Model::default();
    let step = |shared: &dyn SharedData| {
        let before = shared.get("k").map(|(value, _)| value);
        (before, shared.create("k", b"1"), shared.get("k").map(|(value, _)| value))
    };
    let mut answers = Vec::new();
    assert_eq!(one_call(&model, &mut answers, step), None);
    model.create("k", b"2").unwrap();
    assert_eq!(one_call(&model, &mut answers, step), None);
    assert_eq!(one_call(&model, &mut answers, step), Some((None, Err(Changed), Some(b"2".to_vec()))));
    assert_eq!(answers.len(), 3);
}
