//! The HTTP engine: bytes on a socket to heads and bodies and back, HTTP/1.1 and HTTP/2, both sides.
//!
//! The sidecar's stages see [`RequestHead`], [`ResponseHead`], [`Downstream`] and [`Upstream`]; which protocol is spoken on
//! either side is decided in here. It is our own engine over `httparse` and `h2`, for three reasons: messages that two parsers
//! could read differently are refused instead of normalised, every 1xx can be forwarded, and a waiting connection holds no
//! buffer.
//!
//! | file | what |
//! |---|---|
//! | [`serve`] | one client connection from its first byte to its end |
//! | [`downstream`], [`upstream`] | one exchange as the stages see it, either protocol |
//! | [`relay`], [`tunnel`], `splice` | bodies both ways at once; bytes both ways after a change of protocol; long bodies in the kernel |
//! | [`head`], [`headers`], [`target`], [`known`] | heads in one buffer |
//! | [`body`], [`kept`] | framing, and the interface of everything that gives or takes a body; a body kept for another try |
//! | [`h1`], [`h2`] | the protocols |
//! | [`io`], [`buffer`], [`deadline`], [`idle`], [`closing`], [`limits`], [`error`] | what they stand on |

pub mod body;
pub(crate) mod buffer;
pub mod closing;
pub(crate) mod copy;
pub mod deadline;
pub mod downstream;
pub mod error;
#[cfg(test)]
pub(crate) mod fuzzing;
pub mod h1;
pub mod h2;
pub mod head;
pub mod headers;
pub mod idle;
pub mod io;
pub mod kept;
pub mod known;
pub mod limits;
pub mod relay;
pub mod serve;
pub(crate) mod splice;
pub(crate) mod target;
#[cfg(test)]
pub(crate) mod testing;
pub mod tunnel;
pub mod upstream;

pub use body::{Frame, Framing, Sink, Source};
pub use closing::Closing;
pub use copy::BodyCopy;
pub use deadline::Timers;
pub use downstream::Downstream;
pub use error::{Bad, BadClass, Error};
pub use head::{Form, RequestHead, ResponseHead, Scheme};
pub use headers::Headers;
pub use io::Io;
pub use kept::KeptBody;
pub use known::Known;
pub use limits::Limits;
pub use relay::{Pump, Watch, exchange, exchange_alone, next_frame, relay};
pub use serve::{Accepted, ConnContext, Handler, serve};
pub use tunnel::{Tunnel, tunnel};
pub use upstream::Upstream;
