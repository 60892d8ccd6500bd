//! The databases of users and groups.

use std::fs::File;
use std::io::{self, ErrorKind, Read};

/// Whether "there is no such user" can be believed.
///
/// The C library asks several sources, and where one cannot be opened and the next knows nothing, it says just that: a
/// process that has run out of descriptors would find no user at all, and return mail that it should keep. So whoever
/// is told that there is none asks here, too.
///
/// # Errors
/// Why `/etc/passwd` or `/etc/group` cannot be read now. One that is not there, or not for this process, has no part in it.
pub fn are_readable() -> io::Result<()> {
    for path in ["/etc/passwd", "/etc/group"] {
        match File::open(path).and_then(|mut file| file.read(&mut [0])) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}
