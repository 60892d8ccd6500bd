//! What the operator may do to a message, in words and in deed.

use mail::QueueId;
use queue::{Folder, Operator, QueueError};

/// One of postsuper's operations on messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Delete,
    Expire,
    ExpireAndRelease,
    Hold,
    Release,
    Requeue,
}

impl Action {
    /// Where messages are looked for when nothing is said. `incoming` comes first, so that what an action moves there
    /// is not met again.
    pub(super) const fn default_folders(self) -> &'static [Folder] {
        match self {
            Self::Delete | Self::Expire | Self::ExpireAndRelease | Self::Requeue => {
                &[Folder::Incoming, Folder::Active, Folder::Deferred, Folder::Hold]
            }
            Self::Hold => &[Folder::Incoming, Folder::Active, Folder::Deferred],
            Self::Release => &[Folder::Hold],
        }
    }

    /// Whether it makes sense there: what is damaged can only be deleted.
    pub(super) fn applies_to(self, folder: Folder) -> bool {
        self.default_folders().contains(&folder) || (self == Self::Delete && folder == Folder::Corrupt)
    }

    /// Whether qmgr has something to look at afterwards.
    pub(super) const fn gives_work(self) -> bool {
        matches!(self, Self::ExpireAndRelease | Self::Release | Self::Requeue)
    }

    pub(super) fn perform(
        self,
        operator: &Operator,
        id: QueueId,
        folders: &[Folder],
    ) -> Result<(), QueueError> {
        match self {
            Self::Delete => operator.delete(id, folders).map(drop),
            Self::Hold => operator.hold(id, folders).map(drop),
            Self::Release => operator.requeue(id, folders).map(drop),
            Self::Requeue => operator.requeue_anew(id, folders).map(drop),
            Self::Expire => operator.expire(id, folders).map(drop),
            Self::ExpireAndRelease => match operator.expire(id, folders)? {
                Folder::Hold => operator.requeue(id, &[Folder::Hold]).map(drop),
                _ => Ok(()),
            },
        }
    }

    /// What is said of each message.
    pub(super) const fn done(self) -> &'static str {
        match self {
            Self::Delete => "removed",
            Self::Expire | Self::ExpireAndRelease => "expired",
            Self::Hold => "placed on hold",
            Self::Release => "released from hold",
            Self::Requeue => "requeued",
        }
    }

    /// What is said before the number of messages.
    pub(super) const fn summary(self) -> &'static str {
        match self {
            Self::Delete => "Deleted",
            Self::Expire | Self::ExpireAndRelease => "Force-expired",
            Self::Hold => "Placed on hold",
            Self::Release => "Released from hold",
            Self::Requeue => "Requeued",
        }
    }
}
