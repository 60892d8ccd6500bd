//! See the manual page sendmail(1).
#![no_main]

sys::program!(submit::sendmail);
