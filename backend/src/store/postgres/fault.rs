//! Errors of PostgreSQL, and what they say about the row that was sent.

use sqlx::error::ErrorKind;

/// PostgreSQL refused, or did not answer. Where the outcome of a commit is unknown, this is the
/// answer too.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// An error of the connection or the server.
    #[error("PostgreSQL: {0}")]
    Failed(#[from] sqlx::Error),
    /// No answer within the deadline, milliseconds.
    #[error("PostgreSQL did not answer within {0} ms")]
    Late(u128),
    /// A row that this program cannot read.
    #[error("PostgreSQL: unreadable {0}")]
    Unreadable(&'static str),
}

/// What is at fault when a statement fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What was sent: sent again, it would fail again.
    Row,
    /// Code in the database refused it, for a reason that may or may not pass: an exception that a
    /// trigger raises.
    Unclear,
    /// Nothing that the row could help: a conflict with another transaction, a damaged index, a
    /// limit of the server. Other rows may succeed, and so may this one later.
    Internal,
    /// The server's condition, or a schema that does not fit: other rows would have failed as well.
    Server,
}

impl DatabaseError {
    /// What is at fault.
    #[must_use]
    pub fn fault(&self) -> Fault {
        let Self::Failed(sqlx::Error::Database(error)) = self else { return Fault::Server };
        if self.is_above_quota() {
            return Fault::Row;
        }
        fault_of(&error.code().unwrap_or_default(), error.table())
    }

    /// What PostgreSQL answered, with its SQLSTATE.
    #[must_use]
    pub fn cause(&self) -> String {
        match self {
            Self::Failed(sqlx::Error::Database(error)) => {
                format!("{}: {}", error.code().unwrap_or_default(), error.message())
            }
            error => error.to_string(),
        }
    }

    /// Whether a number above the round's largest quota was refused.
    #[must_use]
    pub fn is_above_quota(&self) -> bool {
        matches!(self, Self::Failed(sqlx::Error::Database(error))
            if error.kind() == ErrorKind::CheckViolation
                && error.constraint() == Some("coupons_within_quota"))
    }
}

/// By SQLSTATE (PostgreSQL's manual, appendix A), for a statement that inserts coupons. A winner's
/// place may be given to another user only where the row or code of the operator refuses it, so
/// these are named one by one, and whatever else happens is not held against the row.
fn fault_of(sqlstate: &str, table: Option<&str>) -> Fault {
    match sqlstate.get(..2).unwrap_or_default() {
        // A sequence has no numbers left.
        "22" if sqlstate == "2200H" => Fault::Internal,
        // Data.
        "22" => Fault::Row,
        // Constraints: of the coupons; without a table, raised by a trigger; or of a table that a
        // trigger writes to, such as the outbox.
        "23" => match table {
            Some("coupons") => Fault::Row,
            None => Fault::Unclear,
            Some(_) => Fault::Internal,
        },
        // RAISE in PL/pgSQL.
        "P0" => Fault::Unclear,
        // Connection, transaction state, authorization, catalog and schema, syntax and access,
        // resources, object state, operator intervention, system.
        "" | "08" | "25" | "28" | "3D" | "3F" | "42" | "53" | "55" | "57" | "58" => Fault::Server,
        // PostgreSQL's own: a program limit, a snapshot too old, an internal error.
        "54" | "72" | "XX" => Fault::Internal,
        // The standard leaves classes that begin with these to others: a trigger's own codes.
        class if class.starts_with(|first| matches!(first, '5'..='9' | 'I'..='Z')) => Fault::Unclear,
        _ => Fault::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_row_or_an_operators_code_gives_a_place_away() {
        for (sqlstate, table, fault) in [
            ("23514", Some("coupons"), Fault::Row),
            ("23505", Some("outbox"), Fault::Internal),
            ("23514", None, Fault::Unclear),
            ("22P02", None, Fault::Row),
            ("2200H", None, Fault::Internal),
            ("P0001", None, Fault::Unclear),
            ("U0001", None, Fault::Unclear),
            ("XX000", None, Fault::Internal),
            ("XX001", None, Fault::Internal),
            ("XX002", Some("coupons"), Fault::Internal),
            ("54000", None, Fault::Internal),
            ("0A000", None, Fault::Internal),
            ("40001", None, Fault::Internal),
            ("40P01", None, Fault::Internal),
            ("21000", None, Fault::Internal),
            ("38000", None, Fault::Internal),
            ("39000", None, Fault::Internal),
            ("F0000", None, Fault::Internal),
            ("HV000", None, Fault::Internal),
            ("72000", None, Fault::Internal),
            ("25006", None, Fault::Server),
            ("42883", None, Fault::Server),
            ("53100", None, Fault::Server),
            ("55P03", None, Fault::Server),
            ("57014", None, Fault::Server),
            ("58030", None, Fault::Server),
            ("", None, Fault::Server),
        ] {
            assert_eq!(fault_of(sqlstate, table), fault, "{sqlstate} {table:?}");
        }
        assert_eq!(DatabaseError::Late(1).fault(), Fault::Server);
    }
}
