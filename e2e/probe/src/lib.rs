//! What a host's shared data does, call by call.
//!
//! [`CASES`] is a table of calls with their answers. [`play`] makes the calls and writes the table anew with the answers
//! it was given, so a host that does what the table says answers the table itself. The filter's tests play it on their
//! model of shared data; built for wasm32, this crate is an Envoy module that plays it inside a real Envoy.

#[cfg(target_family = "wasm")]
mod shell;

use std::collections::HashMap;

/// The table.
pub const CASES: &str = include_str!("cases.txt");

/// The two calls.
pub trait Calls {
    /// The value of `key` with its number; none if it is missing.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Whether `key` was set, `cas` being the number it was expected to have.
    fn set(&self, key: &str, value: &[u8], cas: u32) -> bool;
}

/// Makes the table's calls, on keys that begin with `prefix`, and writes it with the answers that came.
#[must_use]
pub fn play(cases: &str, prefix: &str, calls: &dyn Calls) -> String {
    let mut player = Player { prefix, calls, numbers: HashMap::new() };
    let mut transcript = String::new();
    for line in cases.lines() {
        transcript.push_str(&player.line(line));
        transcript.push('\n');
    }
    transcript
}

struct Player<'a> {
    prefix: &'a str,
    calls: &'a dyn Calls,
    /// The numbers that each key was seen with, in order.
    numbers: HashMap<String, Vec<u32>>,
}

impl Player<'_> {
    fn line(&mut self, line: &str) -> String {
        let Some((call, expected)) = line.split_once(" -> ").filter(|_| !line.starts_with('#')) else {
            return line.to_owned();
        };
        let Some((times, repeated)) = call.split_once(" times ") else {
            let answer = self.answer(call);
            return format!("{call} -> {answer}");
        };
        for at in 0..times.parse::<u32>().unwrap_or_default() {
            let with_number = |text: &str| text.replace('@', &at.to_string());
            let answer = self.answer(&with_number(repeated));
            if answer != with_number(expected) {
                return format!("{call} -> {answer} for {at}");
            }
        }
        line.to_owned()
    }

    fn answer(&mut self, call: &str) -> String {
        let words: Vec<&str> = call.split(' ').collect();
        match words.as_slice() {
            ["get", key] => match self.calls.get(&format!("{}{key}", self.prefix)) {
                Some((value, number)) => format!("{} {key}#{}", shortened(&value), self.place_of(key, number)),
                None => "absent".to_owned(),
            },
            ["set", key, value, cas] => match cas.strip_prefix("cas=").and_then(|cas| self.number(cas)) {
                Some(cas) if self.calls.set(&format!("{}{key}", self.prefix), &written_out(value), cas) => {
                    "ok".to_owned()
                }
                Some(_) => "changed".to_owned(),
                None => format!("not made: no number {cas}"),
            },
            _ => "not made: no such call".to_owned(),
        }
    }

    /// Which of the numbers that `key` was seen with this is, from 1.
    fn place_of(&mut self, key: &str, number: u32) -> usize {
        let seen = self.numbers.entry(key.to_owned()).or_default();
        let known = seen.iter().position(|known| *known == number);
        known.unwrap_or_else(|| {
            seen.push(number);
            seen.len() - 1
        }) + 1
    }

    fn number(&self, text: &str) -> Option<u32> {
        match text.split_once('#') {
            Some((key, place)) => self.numbers.get(key)?.get(place.parse::<usize>().ok()?.checked_sub(1)?).copied(),
            None if text == "max" => Some(u32::MAX),
            None => text.parse().ok(),
        }
    }
}

/// `3*x` as `xxx`.
fn written_out(value: &str) -> Vec<u8> {
    let repeated = value.split_once('*').and_then(|(times, byte)| Some(byte.repeat(times.parse().ok()?)));
    repeated.unwrap_or_else(|| value.to_owned()).into_bytes()
}

/// `xxx...` as `1024*x`, and nothing as `0*x`.
fn shortened(value: &[u8]) -> String {
    match value.first() {
        None => "0*x".to_owned(),
        Some(first) if value.len() > 32 && value.iter().all(|byte| byte == first) => {
            format!("{}*{}", value.len(), char::from(*first))
        }
        Some(_) => String::from_utf8_lossy(value).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It has one value, whatever was set.
    struct Stubborn;

    impl Calls for Stubborn {
        fn get(&self, _key: &str) -> Option<(Vec<u8>, u32)> {
            Some((vec![b'z'; 100], 1))
        }

        fn set(&self, _key: &str, _value: &[u8], cas: u32) -> bool {
            cas == 7
        }
    }

    #[test]
    fn a_host_that_answers_otherwise_writes_another_table() {
        let cases =
            "# Note\n\nget a -> absent\nset a b cas=7 -> ok\nset a b cas=a#1 -> ok\n3 times get a@ -> a@ a@#1\nset a\n";
        let transcript = "# Note\n\nget a -> 100*z a#1\nset a b cas=7 -> ok\nset a b cas=a#1 -> changed\n\
                          3 times get a@ -> 100*z a0#1 for 0\nset a\n";
        assert_eq!(play(cases, "", &Stubborn), transcript);
        assert_ne!(play(CASES, "", &Stubborn), CASES);
    }

    #[test]
    fn a_call_that_cannot_be_made_shows() {
        for call in ["get", "set a b", "set a b cas=a#1", "put a b cas=0"] {
            let transcript = play(&format!("{call} -> ok"), "", &Stubborn);
            assert!(transcript.contains("-> not made"), "{transcript}");
        }
    }
}
