//! How far a batch has come, so that no commit says yes to rows that a failure threw away.
//!
//! | | a write begins | a write succeeds | a write fails | a commit succeeds | a commit fails |
//! |---|---|---|---|---|---|
//! | `Clean` | | `Accepted` | `Refused` | | `Refused` |
//! | `Accepted` | | | `Lost` | `Clean` | `Refused` |
//! | `Lost` | | | | never | `Refused` |
//! | `Refused` | `Clean` | | | never | |
//!
//! A failure throws away all that is not committed, and the host writes it again. Where more was thrown away than the write that
//! failed, a commit says no once.

/// Where a batch stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing waits for a commit.
    #[default]
    Clean,
    /// Rows wait for a commit.
    Accepted,
    /// Rows that were accepted have been thrown away, and the host has not been told.
    Lost,
    /// The host has been told, by a write or a commit that failed. A write starts anew.
    Refused,
}

impl Standing {
    pub(crate) fn write_begins(&mut self) {
        if *self == Self::Refused {
            *self = Self::Clean;
        }
    }

    pub(crate) fn write_ends(&mut self, succeeded: bool) {
        *self = match (*self, succeeded) {
            (Self::Clean, true) => Self::Accepted,
            (Self::Clean, false) => Self::Refused,
            (Self::Accepted, false) => Self::Lost,
            (same, _) => same,
        };
    }

    /// Whether a commit may succeed.
    pub(crate) fn may_commit(self) -> bool {
        matches!(self, Self::Clean | Self::Accepted)
    }

    pub(crate) fn commit_ends(&mut self, succeeded: bool) {
        *self = if succeeded { Self::Clean } else { Self::Refused };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `w` a write, `W` one that fails, `c` a commit, `C` one that fails: whether a commit may follow.
    fn check(steps: &str, expect: bool) {
        let mut standing = Standing::default();
        for step in steps.chars() {
            match step {
                'w' | 'W' => {
                    standing.write_begins();
                    standing.write_ends(step == 'w');
                }
                _ => {
                    let succeeded = standing.may_commit() && step == 'c';
                    standing.commit_ends(succeeded);
                }
            }
        }
        assert_eq!(standing.may_commit(), expect, "{steps}");
    }

    #[test]
    fn no_commit_after_a_loss_before_all_was_written_again() {
        check("", true);
        check("wwcw", true);
        check("W", false);
        check("Wc", false);
        check("Ww", true);
        check("wW", false);
        check("wWw", false);
        check("wWwc", false);
        check("wWwcw", true);
        check("wC", false);
        check("wCc", false);
        check("wCw", true);
        check("wCW", false);
        check("wCWw", true);
    }
}
