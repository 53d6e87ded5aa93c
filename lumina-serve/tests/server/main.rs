//! The server over sockets of loopback, with the small model.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: a panic is the failure")]

mod chat;
mod clients;
mod damaged;
mod edits;
mod images;
mod limits;
mod pages;
mod shutdown;
mod slow;
mod support;
