//! Masking: which data is labelled, what hides it, and what may be shown to whom.
//!
//! The road: [`Labels`] say which columns and which values are what; policy says which of them a caller may `see`; the
//! rest are [`Hiding`]. Promises: what cannot be shown to be clean is hidden; a value that breaks an assumption is
//! nothing (NULL), never itself. Nothing here knows a wire format, a file or a clock.

mod bindings;
mod detect;
mod fake;
mod form;
mod hiding;
pub(crate) mod labels;
mod path;
mod provenance;
mod set;
mod sought;
mod token;

pub use bindings::{
    Awaited, Binding, Bindings, BoundColumn, Called, Cause, Change, Keeping, MOST as MOST_BINDINGS, Moved,
    News, Place, Seen, Which,
};
pub use detect::{Detector, Detectors};
pub use form::Form;
pub use hiding::{Hiding, Mask, MaskKey};
pub use labels::{Label, Labelled, Labels, Pattern};
pub use path::{Along, Path};
pub use provenance::{Carried, Compared, Comparison, Destination, Operand, Outputs, Provenance};
pub use set::LabelSet;
pub use sought::{Fingerprint, Sought};
pub use token::{Stands, Tokens};
