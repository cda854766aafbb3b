//! Every state that a system can reach, breadth first: the trace that leads to a violation is a shortest one.

use std::collections::HashSet;
use std::fmt::{self, Debug};

/// Something that can be in many states.
pub(super) trait System: Clone {
    /// What may happen to it.
    type Event: Copy + Debug;

    /// What may happen now.
    fn events(&self) -> Vec<Self::Event>;

    /// What follows.
    ///
    /// # Errors
    /// The event broke a rule.
    fn after(&self, event: Self::Event) -> Result<Self, Violation>;

    /// Equal for states from which the same follows. 64 bits: among a million states two different ones are taken for
    /// the same with a probability of about 3 x 10^-8.
    fn fingerprint(&self) -> u64;

    /// Checks what must hold in every state.
    ///
    /// # Errors
    /// The state breaks a rule.
    fn judge(&self) -> Result<(), Violation>;
}

/// What must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// In flight never exceeds the credit rule, and no credit is given back twice.
    Credits,
    /// No refusal for good that the origin would not give.
    ForGood,
    /// No latch outlives a newer version by more than one tick.
    Latch,
    /// Every leaked credit heals.
    Heals,
    /// While a coupon is left, somebody is admitted again.
    Stranded,
    /// A user holds at most one credit of a campaign.
    OnePerUser,
}

/// A rule that was broken, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) rule: Rule,
    pub(super) how: String,
}

impl Violation {
    pub(super) fn new(rule: Rule, how: impl Into<String>) -> Self {
        Self { rule, how: how.into() }
    }
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) steps: usize,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states, {} steps", self.states, self.steps)
    }
}

/// A violation with a shortest way to it.
#[derive(Debug)]
pub(super) struct Found<E> {
    pub(super) violation: Violation,
    /// Which of the states the search began with.
    start: usize,
    trace: Vec<E>,
}

impl<E: Debug> fmt::Display for Found<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { rule, how } = &self.violation;
        writeln!(f, "{rule:?}: {how}, after start {}", self.start)?;
        self.trace.iter().enumerate().try_for_each(|(at, event)| writeln!(f, "{:4}. {event:?}", at + 1))
    }
}

/// How a state was reached: from which one, by which event. A state that the search began with has its number.
enum Step<E> {
    Start(usize),
    After(usize, E),
}

/// Visits every state that at most `depth` events lead to from one of `starts`.
pub(super) fn explore<S: System>(starts: Vec<S>, depth: usize) -> Result<Explored, Found<S::Event>> {
    let mut search = Search { seen: HashSet::new(), steps: Vec::new(), explored: Explored::default() };
    let mut layer = Vec::new();
    for (number, start) in starts.into_iter().enumerate() {
        layer.extend(search.visit(start, Step::Start(number))?);
    }
    for _ in 0..depth {
        let mut next = Vec::new();
        for (at, state) in layer {
            for event in state.events() {
                search.explored.steps += 1;
                let after = state.after(event).map_err(|violation| search.found(violation, at, Some(event)))?;
                next.extend(search.visit(after, Step::After(at, event))?);
            }
        }
        layer = next;
    }
    Ok(search.explored)
}

struct Search<E> {
    seen: HashSet<u64>,
    /// One for each state that was seen.
    steps: Vec<Step<E>>,
    explored: Explored,
}

impl<E: Copy> Search<E> {
    /// The state with its place, unless it was seen before.
    fn visit<S: System<Event = E>>(&mut self, state: S, step: Step<E>) -> Result<Option<(usize, S)>, Found<E>> {
        if !self.seen.insert(state.fingerprint()) {
            return Ok(None);
        }
        self.explored.states += 1;
        let at = self.steps.len();
        self.steps.push(step);
        state.judge().map_err(|violation| self.found(violation, at, None))?;
        Ok(Some((at, state)))
    }

    fn found(&self, violation: Violation, at: usize, last: Option<E>) -> Found<E> {
        let mut trace: Vec<E> = last.into_iter().collect();
        let mut at = at;
        loop {
            match self.steps[at] {
                Step::Start(start) => {
                    trace.reverse();
                    return Found { violation, start, trace };
                }
                Step::After(before, event) => {
                    trace.push(event);
                    at = before;
                }
            }
        }
    }
}
