//! Users with a request at the origin, so that one user holds one credit at most.
//!
//! The list is part of the account, which an admission changes in any case, so it costs no further call. It is short:
//! where more requests are at the origin than it has places, the stock is large, and a user who falls out of the list may
//! hold a second credit.

/// Places.
pub const MOST_USERS: usize = 128;

/// Stands for a user of a campaign: a part of a keyed hash. Two users share a mark once in four thousand million pairs;
/// then one of them is asked to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct UserMark(pub u32);

/// Users with a request at the origin, the newest last.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct UsersInFlight(pub(crate) Vec<(UserMark, i64)>);

impl UsersInFlight {
    /// Whether a request of this user holds a credit.
    #[must_use]
    pub fn contains(&self, user: UserMark, now_ms: i64) -> bool {
        self.0.iter().any(|(known, until_ms)| *known == user && *until_ms > now_ms)
    }

    /// Adds a user until `until_ms` at the latest. Where there is no place, the user who was added first falls out.
    pub(super) fn insert(&mut self, user: UserMark, now_ms: i64, until_ms: i64) {
        self.0.retain(|(_, until_ms)| *until_ms > now_ms);
        if self.0.len() >= MOST_USERS {
            self.0.remove(0);
        }
        self.0.push((user, until_ms));
    }

    /// The user's request is over, and its credit is free.
    pub(super) fn remove(&mut self, user: UserMark) {
        self.0.retain(|(known, _)| *known != user);
    }

    /// The user's request is over, and its credit is free at `until_ms`.
    pub(super) fn keep_until(&mut self, user: UserMark, until_ms: i64) {
        for (_, kept_ms) in self.0.iter_mut().filter(|(known, _)| *known == user) {
            *kept_ms = until_ms;
        }
    }

    /// Removes those whose credits are free.
    #[cfg(test)]
    pub(super) fn forget(&mut self, now_ms: i64) {
        self.0.retain(|(_, until_ms)| *until_ms > now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_keeps_the_newest_users_and_drops_expired_ones() {
        let mut users = UsersInFlight::default();
        for user in 0..=MOST_USERS {
            users.insert(UserMark(u32::try_from(user).unwrap()), 0, 10);
        }
        assert_eq!(users.0.len(), MOST_USERS);
        assert!(!users.contains(UserMark(0), 0) && users.contains(UserMark(1), 9));
        assert!(!users.contains(UserMark(1), 10));
        users.insert(UserMark(7), 10, 20);
        assert_eq!(users.0, [(UserMark(7), 20)]);
        users.keep_until(UserMark(7), 12);
        assert!(!users.contains(UserMark(7), 12));
        users.remove(UserMark(7));
        assert_eq!(users.0, []);
    }
}
