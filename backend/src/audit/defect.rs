//! What an audit can find wrong, each with the rows that show it.

use serde::Serialize;

/// A promise that is broken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Defect {
    /// More coupons than any quota the round has had.
    #[error("{issued} coupons are issued, and the largest quota was {largest_quota}")]
    OverIssued {
        /// Rows in PostgreSQL.
        issued: u64,
        /// The largest quota the round has had.
        largest_quota: u64,
    },
    /// A user with several coupons.
    #[error("user {user} has several coupons: {}", codes.join(" "))]
    UserTwice {
        /// Who.
        user: String,
        /// Their codes.
        codes: Vec<String>,
    },
    /// A number on several coupons.
    #[error("number {number} is on several coupons: {}", codes.join(" "))]
    NumberTwice {
        /// Which.
        number: i64,
        /// Their codes.
        codes: Vec<String>,
    },
    /// A number that must not exist.
    #[error("coupon {code} of {user} has number {number}, which is not from 1 to the largest quota")]
    NumberOutside {
        /// Its holder.
        user: String,
        /// The coupon.
        code: String,
        /// Its number.
        number: i64,
    },
    /// The round's counter, which gateways are told, is wrong.
    #[error("the round counts {counted} coupons, and has {rows}")]
    Miscounted {
        /// `rounds.issued`.
        counted: u64,
        /// Rows in PostgreSQL.
        rows: u64,
    },
    /// Numbers that were given and are neither issued nor pending nor free: nobody will ever have them.
    #[error("numbers {from} to {to} are lost: given once, and now neither issued nor pending nor free")]
    NumbersLost {
        /// The first of them.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A number that Redis would give although it is taken.
    #[error("number {number} is free in Redis, and taken by {code}")]
    FreeAndTaken {
        /// Which.
        number: u64,
        /// The coupon or place that has it.
        code: String,
    },
    /// Redis would give numbers that are issued already.
    #[error("Redis has given numbers up to {next}, and {highest} is issued")]
    Behind {
        /// The highest number that Redis has given.
        next: u64,
        /// The highest number issued.
        highest: u64,
    },
    /// Two places with one number.
    #[error("number {number} is held by several places: {}", codes.join(" "))]
    HeldTwice {
        /// Which.
        number: u64,
        /// The codes of the places.
        codes: Vec<String>,
    },
    /// A user whom Redis calls served, without the row.
    #[error("Redis has coupon {code} of {user} as committed, and PostgreSQL does not have it")]
    CommittedWithoutRow {
        /// Who.
        user: String,
        /// The code in Redis.
        code: String,
    },
    /// A coupon whose user Redis does not know, or knows with another coupon.
    #[error("coupon {code} of {user} is issued, and Redis has {}", held.as_deref().unwrap_or("nothing"))]
    RowNotInRedis {
        /// Who.
        user: String,
        /// The coupon.
        code: String,
        /// What Redis holds for the user.
        held: Option<String>,
    },
    /// A pending place that only one of Redis's two keys has.
    #[error("Redis has the pending place {place} of {user} in one of its keys only")]
    HalfHeld {
        /// Who.
        user: String,
        /// `CODE:NUMBER`.
        place: String,
    },
    /// What this program does not write.
    #[error("Redis holds {text:?} for {user}, which nobody can read")]
    Unreadable {
        /// Who, or what key.
        user: String,
        /// What is there.
        text: String,
    },
    /// A pending place that should have been committed or given back long ago.
    #[error("the place {code} of {user}, number {number}, is pending since {since_ms} (Unix milliseconds)")]
    Stuck {
        /// Who.
        user: String,
        /// The place.
        code: String,
        /// Its number.
        number: u64,
        /// When it was reserved.
        since_ms: i64,
    },
    /// A client was told of a coupon that does not exist.
    #[error("{user} was told of {}, and there is no such row", code.as_deref().unwrap_or("a coupon"))]
    SeenWithoutRow {
        /// Who.
        user: String,
        /// The code, where it was told.
        code: Option<String>,
    },
    /// A client was told of somebody else's coupon.
    #[error("{user} was told of coupon {code}, which is {owner}'s")]
    SeenByAnother {
        /// Who.
        user: String,
        /// The code.
        code: String,
        /// Whose it is.
        owner: String,
    },
    /// Sums that cannot be, whatever was lost on the way.
    #[error("{what}")]
    Impossible {
        /// Which, and why.
        what: String,
    },
}
