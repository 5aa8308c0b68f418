//! A client's message as it was read, before it is judged.
//!
//! Promise: a name of our own is nobody else's; what cannot be read is malformed, never guessed.

use std::sync::Arc;

use bytes::Bytes;
use interceptor_core::model::Text;

use super::{
    action::Reading,
    bind::{self, Bind},
    enclose::All,
    frame::{Fields, Malformed},
    large::LargeBind,
    names::Name,
    own::PREFIX,
};

/// A frame that is being judged.
#[derive(Debug)]
pub(super) enum Work {
    Query {
        frame: Bytes,
        reading: Reading,
    },
    Parse {
        frame: Bytes,
        name: Name,
        reading: Arc<Reading>,
        types: Vec<u32>,
    },
    Bind {
        frame: Bytes,
        bind: Bind,
    },
    /// The beginning of a Bind, and how much of it is to follow.
    LargeBind {
        first: Bytes,
        large: Box<LargeBind>,
        left: usize,
    },
    Execute {
        frame: Bytes,
        portal: Name,
        all: All,
    },
    Function {
        frame: Bytes,
        call: bind::Call,
    },
}

/// A frame that was judged, to be judged once more; none where it is not one of those that wait.
pub(super) fn read_again(frame: Bytes) -> Option<Work> {
    let tag = frame.first().copied().filter(|tag| matches!(tag, b'Q' | b'E' | b'F'))?;
    read(tag, frame).ok()
}

/// A name that a client may use.
pub(super) fn own_name(name: Name) -> Result<Name, Malformed> {
    check_name(&name)?;
    Ok(name)
}

fn check_name(name: &str) -> Result<(), Malformed> {
    if name.starts_with(PREFIX) { Err(Malformed) } else { Ok(()) }
}

/// Reads the beginning of a Bind.
pub(super) fn read_large(first: &Bytes) -> Result<LargeBind, Malformed> {
    let large = LargeBind::begin(Fields::of(first).rest())?;
    check_name(large.portal())?;
    check_name(large.statement())?;
    Ok(large)
}

/// Reads a message of one of the kinds that are judged.
pub(super) fn read(tag: u8, frame: Bytes) -> Result<Work, Malformed> {
    let mut fields = Fields::of(&frame);
    Ok(match tag {
        b'Q' => {
            let reading = reading(fields.text()?);
            fields.end()?;
            Work::Query { frame, reading }
        }
        b'P' => {
            let name = own_name(fields.name()?)?;
            let reading = Arc::new(reading(fields.text()?).kept());
            let types = (0..fields.count()?).map(|_| fields.u32()).collect::<Result<_, _>>()?;
            fields.end()?;
            Work::Parse { frame, name, reading, types }
        }
        b'B' => {
            let bind = bind::read(fields)?;
            check_name(&bind.portal)?;
            check_name(&bind.statement)?;
            Work::Bind { frame, bind }
        }
        b'E' => {
            let portal = own_name(fields.name()?)?;
            // None, or an impossible one, is all.
            let all = if fields.i32()? > 0 { All::Part } else { All::Rows };
            fields.end()?;
            Work::Execute { frame, portal, all }
        }
        _ => Work::Function { frame, call: bind::read_call(fields)? },
    })
}

fn reading(text: Bytes) -> Reading {
    match Text::try_from(text.clone()) {
        Ok(text) => Reading::of(text),
        Err(_) => {
            Reading::unread(String::from_utf8_lossy(&text).into_owned().into(), "the text is not UTF-8")
        }
    }
}
