//! What clients were told, as their machine wrote it down.

/// A client was told that a user has a coupon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Who.
    pub user: String,
    /// The coupon's code; none where only its existence was told (`already_issued`).
    pub code: Option<String>,
}

/// Reads one sighting a line: `USER CODE`, or `USER` alone. Empty lines do not matter.
///
/// # Errors
/// The first line that is neither, and its number.
pub fn read_sightings(text: &str) -> Result<Vec<Sighting>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let mut words = line.split_whitespace().map(ToOwned::to_owned);
            match (words.next(), words.next(), words.next()) {
                (Some(user), code, None) => Ok(Sighting { user, code }),
                _ => Err(format!("line {} is not `USER CODE`, nor `USER` alone: {line:?}", index + 1)),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_user_and_mostly_a_code() {
        let read = read_sightings("alice 7K3M9QZ2WX4T\n\n bob \n").unwrap();
        let sighting = |user: &str, code: Option<&str>| Sighting { user: user.into(), code: code.map(Into::into) };
        assert_eq!(read, [sighting("alice", Some("7K3M9QZ2WX4T")), sighting("bob", None)]);
    }

    #[test]
    fn another_line_is_named() {
        let error = read_sightings("alice A\nbob B 17\n").unwrap_err();
        assert!(error.starts_with("line 2 "), "{error}");
    }
}
