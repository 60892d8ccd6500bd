//! What many threads have to say over one connection.
//!
//! A thread that finds another one sending leaves its words with it and goes on: they go out together, with one system call
//! and one wake-up at the other end, and nobody waits for a lock that is held during a call. The order of a thread's words
//! is kept. What is in no hurry is left for the next who has something to say.

use std::io;
use std::sync::{Condvar, Mutex, PoisonError};

/// More words than this wait for a connection only with the threads that have them.
const MOST_WAITING: usize = 256 * 1024;

/// More words than this are not left for later.
const MOST_LEFT: usize = 16 * 1024;

/// Memory that is kept between words.
const MOST_KEPT: usize = 4096;

/// What is said: bytes, or bytes and what goes with them.
pub trait Words: Default {
    /// How many bytes wait.
    fn size(&self) -> usize;

    /// Forgets all, and keeps memory for the next ones unless that is much.
    fn reuse(&mut self);
}

impl Words for Vec<u8> {
    fn size(&self) -> usize {
        self.len()
    }

    fn reuse(&mut self) {
        self.clear();
        self.shrink_to(MOST_KEPT);
    }
}

/// Words on their way to a connection. Shared by reference.
#[derive(Debug, Default)]
pub struct Outbox<W = Vec<u8>> {
    state: Mutex<State<W>>,
    taken: Condvar,
}

#[derive(Debug, Default)]
struct State<W> {
    waiting: W,
    /// A thread is sending, and looks for more when it is done.
    sending: bool,
    /// A thread waits for room.
    is_full: bool,
}

impl<W: Words> Outbox<W> {
    /// Adds what `put` appends, which goes out with what is said next. `true`: that should be at once, since much waits.
    ///
    /// # Errors
    /// What `put` says.
    pub fn leave(&self, put: impl FnOnce(&mut W) -> io::Result<()>) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        put(&mut state.waiting)?;
        Ok(state.waiting.size() > MOST_LEFT)
    }

    /// Adds what `put` appends; where no other thread is at it, has `send` called until all is gone.
    ///
    /// # Errors
    /// What `put` says, and what `send` said last to this thread: the words may have been another's.
    pub fn say(
        &self,
        put: impl FnOnce(&mut W) -> io::Result<()>,
        mut send: impl FnMut(&W) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.sending && state.waiting.size() > MOST_WAITING {
            state.is_full = true;
            state = self.taken.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        put(&mut state.waiting)?;
        if state.sending {
            return Ok(());
        }
        state.sending = true;
        let (mut result, mut words) = (Ok(()), W::default());
        while state.waiting.size() > 0 {
            std::mem::swap(&mut state.waiting, &mut words);
            if std::mem::take(&mut state.is_full) {
                self.taken.notify_all();
            }
            drop(state);
            if let Err(error) = send(&words) {
                result = Err(error);
            }
            words.reuse();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        }
        state.sending = false;
        state.waiting = words;
        result
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn all_words_arrive_whole_and_each_threads_in_their_order() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            there.read_to_end(&mut all).map(|_| all)
        });
        let outbox = Outbox::<Vec<u8>>::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let (outbox, here) = (&outbox, &here);
                scope.spawn(move || {
                    for number in 0..10_000_u32 {
                        let put = |out: &mut Vec<u8>| {
                            out.push(thread);
                            out.extend_from_slice(&[0; 95]);
                            out.extend_from_slice(&number.to_le_bytes());
                            Ok(())
                        };
                        outbox.say(put, |words| (&*here).write_all(words)).unwrap();
                    }
                });
            }
        });
        drop(here);
        let mut next = [0_u32; 4];
        for word in reader.join().unwrap().unwrap().chunks_exact(100) {
            let expected = &mut next[usize::from(word[0])];
            assert_eq!(word[96..], expected.to_le_bytes());
            *expected += 1;
        }
        assert_eq!(next, [10_000; 4]);
    }

    #[test]
    fn what_was_left_goes_first_when_something_is_said() {
        let (outbox, mut sent) = (Outbox::<Vec<u8>>::default(), Vec::new());
        let put = |text: &'static [u8]| {
            move |out: &mut Vec<u8>| {
                out.extend_from_slice(text);
                Ok(())
            }
        };
        assert!(!outbox.leave(put(b"first ")).unwrap());
        assert!(!outbox.leave(put(b"second ")).unwrap());
        let send = |words: &Vec<u8>| {
            sent.extend_from_slice(words);
            Ok(())
        };
        outbox.say(put(b"third"), send).unwrap();
        assert_eq!(sent, b"first second third");
        assert!(outbox.leave(put(&[0; MOST_LEFT + 1])).unwrap());
    }

    #[test]
    fn an_error_is_told_and_the_next_words_are_sent() {
        let (outbox, sent) = (Outbox::<Vec<u8>>::default(), Mutex::new(Vec::new()));
        let put = |out: &mut Vec<u8>| {
            out.push(b'x');
            Ok(())
        };
        assert!(outbox.say(put, |_| Err(io::ErrorKind::BrokenPipe.into())).is_err());
        assert!(outbox.say(|_| Err(io::ErrorKind::InvalidData.into()), |_| Ok(())).is_err());
        outbox
            .say(put, |words| {
                sent.lock().unwrap().extend_from_slice(words);
                Ok(())
            })
            .unwrap();
        assert_eq!(*sent.lock().unwrap(), b"x");
    }
}
