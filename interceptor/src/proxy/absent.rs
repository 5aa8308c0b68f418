//! A decoder that is not there. It knows nothing and does nothing; whatever asks it anything has come too early.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use interceptor_core::{
    Decoder, Denial, Notice, Side, Step, Terms,
    mask::{Hiding, Mask},
    model::{RecordId, Spent},
    protocol::{CancelKey, DecodeError, Greeting, Refusal, Stopped},
};

/// In a decoder's place while it works elsewhere, and for good if it did not come back.
pub(super) struct Absent;

impl Decoder for Absent {
    fn step(&mut self, side: Side, _: &mut BytesMut) -> Result<Step, DecodeError> {
        Err(DecodeError { guilty: side, what: "it was not decoded".to_owned() })
    }

    fn opened(&mut self, _: &Greeting, _: &CancelKey) -> Bytes {
        Bytes::new()
    }

    fn record_rows(&mut self, _: Arc<Hiding>) {}

    fn recorded(&mut self, _: u64, _: RecordId) {}

    fn sent(&mut self, _: u64, _: Mask) {}

    fn refuse(&mut self, _: u64, _: &Denial) -> Refusal {
        Refusal { client: Bytes::new(), upstream: Bytes::new() }
    }

    fn again(&mut self, _: u64) {}

    fn enclose(&mut self, _: u64, _: Terms) {}

    fn notice(&mut self, _: &Notice) -> Option<Bytes> {
        None
    }

    fn passed(&mut self) -> Spent {
        Spent::default()
    }

    fn allow(&mut self, _: Spent) {}

    fn stop(&mut self, _: &Denial) -> Stopped {
        Stopped { client: Bytes::new(), done: None }
    }

    fn farewell(&mut self, _: &Denial) -> Bytes {
        Bytes::new()
    }

    fn is_idle(&self) -> bool {
        false
    }
}
