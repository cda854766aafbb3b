//! Clients of the gateways: users who ask, ask again, click twice and hang up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use doorbuster_e2e::http::{self, Reply};

use super::dice::Dice;
use super::record::{Answer, Record};

/// Clients at work at the same time.
const CLIENTS: u64 = 64;
/// Nobody waits longer for an answer; a gateway gives up on a backend after 4 s.
const PATIENCE: Duration = Duration::from_secs(6);
/// Somebody who hangs up does it within this, milliseconds.
const HANGS_UP_WITHIN_MS: u64 = 30;
/// How often the location of a pending coupon is looked at, and how long apart.
const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(300);
/// Somebody who claims asks again so soon.
const ASKS_AGAIN: Duration = Duration::from_millis(50);

/// A crowd before the gateways.
pub(super) struct Crowd<'a> {
    pub(super) gateways: &'a [String],
    pub(super) campaign: &'a str,
    pub(super) record: &'a Record,
    /// Whether the user of this program wants to stop.
    pub(super) interrupted: &'a AtomicBool,
}

impl Crowd<'_> {
    /// Asks at up to `rate` requests a second until `over`, with at most `users` different users. Some ask again, some
    /// click twice, some hang up.
    pub(super) fn storm(&self, seed: u64, users: u64, rate: u64, over: &AtomicBool) {
        let next = AtomicU64::new(0);
        let period = Duration::from_micros(1_000_000 * CLIENTS / rate.max(1));
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let next = &next;
                // Clients take turns, so that a rate is even and not a pulse.
                let turn = period.mul_f64(fraction(client, CLIENTS));
                scope.spawn(move || {
                    let mut dice = Dice::new(seed ^ (client << 32));
                    let mut due = Instant::now() + turn;
                    while !over.load(Ordering::Relaxed) {
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        // Whoever was held up does not catch up.
                        due = (due + period).max(Instant::now());
                        let user = someone(&mut dice, next, users);
                        self.ask_somehow(&mut dice, &format!("u{user}"));
                    }
                });
            }
        });
    }

    fn ask_somehow(&self, dice: &mut Dice, user: &str) {
        let gateway = dice.pick(self.gateways).map_or("", String::as_str);
        if dice.one_in(25) {
            let patience = Duration::from_millis(dice.between(1..=HANGS_UP_WITHIN_MS));
            if self.ask(gateway, user, patience).is_none() {
                self.record.hung_up();
                return;
            }
        }
        if dice.one_in(20) {
            // A double click: the second request is under way with the first, and may reach another gateway.
            let other = dice.pick(self.gateways).map_or("", String::as_str);
            thread::scope(|scope| {
                scope.spawn(|| self.ask_and_look(other, user));
                self.ask_and_look(gateway, user);
            });
            return;
        }
        self.ask_and_look(gateway, user);
    }

    /// Asks, and follows the location of a pending coupon for a while.
    fn ask_and_look(&self, gateway: &str, user: &str) {
        let Some(answer) = self.ask(gateway, user, PATIENCE) else {
            self.record.no_answer();
            return;
        };
        let Answer::Pending { location } = answer else { return };
        for _ in 0..LOOKS {
            thread::sleep(BETWEEN_LOOKS);
            let reply =
                http::send_within(PATIENCE, "GET", &format!("{gateway}{location}"), &[("x-user-id", user)], None);
            if reply.is_ok_and(|reply| self.record.looked(user, &reply)) {
                return;
            }
        }
    }

    /// None without an answer in time.
    fn ask(&self, gateway: &str, user: &str, patience: Duration) -> Option<Answer> {
        let url = format!("{gateway}/v1/coupon/issue?campaign={}", self.campaign);
        let reply: Reply = http::send_within(patience, "POST", &url, &[("x-user-id", user)], None).ok()?;
        Some(self.record.answered(user, &reply))
    }

    /// Has `users` fresh users ask until each one's answer is final, or the deadline has come. Returns how many are left
    /// without a final answer.
    pub(super) fn claim(&self, users: u64, deadline: Instant) -> u64 {
        let (next, left) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for client in 0..CLIENTS {
                let (next, left) = (&next, &left);
                let gateway = self.gateways.iter().cycle().nth(usize::try_from(client).unwrap_or(0));
                scope.spawn(move || {
                    loop {
                        let user = next.fetch_add(1, Ordering::Relaxed);
                        if user >= users {
                            return;
                        }
                        if !self.claims(gateway.map_or("", String::as_str), &format!("claimant{user}"), deadline) {
                            left.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        left.into_inner()
    }

    fn claims(&self, gateway: &str, user: &str, deadline: Instant) -> bool {
        while Instant::now() < deadline && !self.interrupted.load(Ordering::Relaxed) {
            match self.ask(gateway, user, PATIENCE) {
                Some(Answer::Final) => return true,
                Some(Answer::Pending { .. } | Answer::AskAgain) => {}
                None => self.record.no_answer(),
            }
            thread::sleep(ASKS_AGAIN);
        }
        false
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few clients")]
fn fraction(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Mostly somebody new, while there are; else one of the last to come, or anybody.
fn someone(dice: &mut Dice, next: &AtomicU64, users: u64) -> u64 {
    const RECENT: u64 = 50;
    let known = next.load(Ordering::Relaxed).min(users);
    if known == 0 || (known < users && !dice.one_in(4)) {
        let fresh = next.fetch_add(1, Ordering::Relaxed);
        if fresh < users {
            return fresh;
        }
    }
    let known = next.load(Ordering::Relaxed).min(users).max(1);
    let oldest = if dice.one_in(2) { known.saturating_sub(RECENT) } else { 0 };
    dice.between(oldest..=known - 1)
}
