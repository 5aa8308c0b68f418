//! The engine's calls that a run may make, as a list. What is not on it is refused, with what to do instead.
//!
//! Calls, their parameters and which of them take a body over: Docker Engine API 1.24 to 1.51. Names are of the run's own
//! containers only. Images are the host's: they can be looked at, fetched where policy permits it, and built; names that a run
//! gives are its own.

use hyper::Method;

use super::{Cadence, build, refusal::Refusal};

/// What a call is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Something about the engine, which goes on as it is.
    Look,
    /// Whether it is there, and how it builds.
    Ping,
    /// The images that the run may use.
    Images,
    /// Something about one of them.
    Image {
        /// As the run names it.
        name: String,
    },
    /// Give one of them another name, in the run alone.
    Tag {
        /// As the run names it.
        name: String,
    },
    /// Take a name that the run gave, and what it has built when that has none.
    Untag {
        /// As the run names it.
        name: String,
    },
    /// Fetch an image.
    Pull,
    /// Build one.
    Build,
    /// A list, of which the run sees its own.
    List,
    /// Events, of which the run sees its own.
    Events,
    /// Make a container.
    Create,
    /// Something with a container.
    Container {
        /// As the run names it.
        name: String,
        /// What.
        what: OfContainer,
    },
    /// Prepare a command in a container.
    Prepare {
        /// The container, as the run names it.
        name: String,
    },
    /// Something with a prepared command.
    Command {
        /// Its id.
        id: String,
        /// What.
        what: OfCommand,
    },
}

/// What is done with a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfContainer {
    /// Its description, which is made to fit the network that it is in.
    Inspect,
    /// Something else that is read from it.
    Read,
    /// Files are copied out of it or into it.
    Copy,
    /// Something that takes no body.
    Act,
    /// Its streams.
    Attach,
    /// Its end.
    Remove,
}

/// What is done with a prepared command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfCommand {
    /// It begins, and gives its streams.
    Start,
    /// Something that takes no body.
    Act,
}

/// A call, and the version of the interface that it is made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    /// Such as `/v1.41`; empty for none.
    pub(super) version: String,
    /// The rest of the path.
    pub(super) rest: String,
    pub(super) route: Route,
}

/// Parameters that change nothing but what is asked. Others are refused: one names a folder of the host's.
const PARAMETERS: &[&str] = &[
    "all",
    "condition",
    "copyUIDGID",
    "detachKeys",
    "digests",
    "filters",
    "follow",
    "force",
    "h",
    "limit",
    "logs",
    "name",
    "noOverwriteDirNonDir",
    "one-shot",
    "path",
    "shared-size",
    "signal",
    "since",
    "size",
    "stderr",
    "stdin",
    "stdout",
    "stream",
    "t",
    "tail",
    "timestamps",
    "until",
    "v",
    "w",
];

/// The same, of fetching an image.
const PULL: &[&str] = &["fromImage", "platform", "tag"];
/// Of naming one.
const TAG: &[&str] = &["repo", "tag"];
/// Of taking its name.
const UNTAG: &[&str] = &["force", "noprune"];

/// Why whole kinds of calls are refused, and what to do instead.
const REFUSED: &[(&str, &str)] = &[
    (
        "images",
        "images are the host's: a run fetches them where policy permits it, and builds its own; it neither loads nor sends any",
    ),
    ("build", NO_BUILDKIT),
    ("session", NO_BUILDKIT),
    ("grpc", NO_BUILDKIT),
    ("commit", "images are the host's: a run makes none"),
    (
        "networks",
        "the containers of a run share its network: they reach each other, and the run reaches them, by localhost and the \
         container's own port",
    ),
    (
        "volumes",
        "named volumes are the host's: bind a folder below the one that the run works in, or use a tmpfs",
    ),
    ("auth", "the engine holds no log-in for a run"),
];

/// BuildKit fetches by itself what a build names, and runs what the engine's runtime is not asked about.
pub(super) const NO_BUILDKIT: &str = "a run builds by the engine's own builder, whose steps are captured: set DOCKER_BUILDKIT=0, and call no `docker buildx`";

/// What a call is, if a run may make it.
pub(super) fn route(method: &Method, path: &str) -> Result<Call, Refusal> {
    let all: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let is_plain = |part: &str| !part.is_empty() && !matches!(part, "." | "..") && part.chars().all(is_named);
    if !all.iter().all(|part| is_plain(part)) {
        return Err(Refusal::malformed(format!("{path:?} is no path of the engine's interface")));
    }
    let (version, parts) = match all.split_first() {
        Some((first, rest)) if is_version(first) => (format!("/{first}"), rest),
        _ => (String::new(), all.as_slice()),
    };
    let route = known(method, parts).ok_or_else(|| refusal(method, parts))?;
    Ok(Call { version, rest: format!("/{}", parts.join("/")), route })
}

fn known(method: &Method, parts: &[&str]) -> Option<Route> {
    let is_get = *method == Method::GET;
    let container = |name: &str, what| Some(Route::Container { name: name.to_owned(), what });
    match (method.as_str(), parts) {
        ("GET" | "HEAD", ["_ping"]) => Some(Route::Ping),
        ("GET", ["version" | "info"]) => Some(Route::Look),
        ("GET", ["images", "json"]) => Some(Route::Images),
        (_, ["images", name @ .., "json" | "history"]) if is_get && !name.is_empty() => {
            Some(Route::Image { name: name.join("/") })
        }
        ("POST", ["images", name @ .., "tag"]) if !name.is_empty() => {
            Some(Route::Tag { name: name.join("/") })
        }
        ("DELETE", ["images", name @ ..]) if !name.is_empty() => Some(Route::Untag { name: name.join("/") }),
        ("POST", ["images", "create"]) => Some(Route::Pull),
        ("POST", ["build"]) => Some(Route::Build),
        ("GET", ["containers", "json"]) => Some(Route::List),
        ("GET", ["events"]) => Some(Route::Events),
        ("POST", ["containers", "create"]) => Some(Route::Create),
        ("GET", ["containers", name, "json"]) => container(name, OfContainer::Inspect),
        ("GET", ["containers", name, "logs" | "top" | "stats" | "changes"]) => {
            container(name, OfContainer::Read)
        }
        ("GET" | "HEAD" | "PUT", ["containers", name, "archive"]) => container(name, OfContainer::Copy),
        (
            "POST",
            [
                "containers",
                name,
                "start" | "stop" | "restart" | "kill" | "pause" | "unpause" | "wait" | "resize",
            ],
        ) => container(name, OfContainer::Act),
        ("POST", ["containers", name, "attach"]) => container(name, OfContainer::Attach),
        ("DELETE", ["containers", name]) => container(name, OfContainer::Remove),
        ("POST", ["containers", name, "exec"]) => Some(Route::Prepare { name: (*name).to_owned() }),
        ("POST", ["exec", id, "start"]) => {
            Some(Route::Command { id: (*id).to_owned(), what: OfCommand::Start })
        }
        ("GET", ["exec", id, "json"]) | ("POST", ["exec", id, "resize"]) => {
            Some(Route::Command { id: (*id).to_owned(), what: OfCommand::Act })
        }
        _ => None,
    }
}

fn refusal(method: &Method, parts: &[&str]) -> Refusal {
    let kind = parts.first().copied().unwrap_or_default();
    let why = REFUSED.iter().find(|(refused, _)| *refused == kind).map(|(_, why)| *why);
    let why = why.unwrap_or("a run does not get this from the engine: do it outside, or without");
    Refusal::forbidden(format!("{method} /{}: {why}", parts.join("/")))
}

impl Route {
    /// The parameters that such a call may have.
    fn known_parameters(&self) -> &'static [&'static str] {
        match self {
            Self::Pull => PULL,
            Self::Tag { .. } => TAG,
            Self::Untag { .. } => UNTAG,
            Self::Build => build::PARAMETERS,
            _ => PARAMETERS,
        }
    }

    /// The parameters of a call.
    pub(super) fn parameters(&self, query: &str) -> Result<Vec<(String, String)>, Refusal> {
        let known = self.known_parameters();
        let all: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        // Clients send some that say nothing.
        let says = |value: &str| !matches!(value, "" | "0" | "false" | "False" | "null" | "[]" | "{}");
        match all.iter().find(|(name, value)| !known.contains(&name.as_str()) && says(value)) {
            Some((name, _)) => Err(Refusal::parameter(name)),
            None => Ok(all.into_iter().filter(|(name, _)| known.contains(&name.as_str())).collect()),
        }
    }

    /// How often a run can make such calls.
    pub(super) fn cadence(&self, method: &Method) -> Cadence {
        match self {
            // Each change of a window's size.
            _ if *method == Method::GET || *method == Method::HEAD => Cadence::Loop,
            Self::Command { what: OfCommand::Act, .. } => Cadence::Loop,
            _ => Cadence::Each,
        }
    }
}

fn is_named(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-:@".contains(c)
}

fn is_version(part: &str) -> bool {
    part.strip_prefix('v')
        .is_some_and(|number| number.contains('.') && number.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Result<Route, Refusal> {
        route(&Method::GET, path).map(|call| call.route)
    }

    #[test]
    fn what_is_not_on_the_list_is_refused() {
        assert_eq!(get("/_ping"), Ok(Route::Ping));
        let image = Route::Image { name: "registry.local:5000/team/app:1".into() };
        assert_eq!(get("/v1.41/images/registry.local:5000/team/app:1/json"), Ok(image));
        assert_eq!(get("/images/json"), Ok(Route::Images));
        assert_eq!(route(&Method::POST, "/v1.41/build").map(|call| call.route), Ok(Route::Build));
        assert_eq!(get("/v1.41/containers/json"), Ok(Route::List));
        let inspect = Route::Container { name: "db".into(), what: OfContainer::Inspect };
        assert_eq!(get("/v1.41/containers/db/json"), Ok(inspect));
        for path in [
            "/",
            "",
            "//containers/json",
            "/v1.41",
            "/v1.41/containers/../json",
            "/containers/%2e%2e/json",
            "/containers/db/export",
            "/containers/db/attach/ws",
            "/secrets",
            "/swarm",
            "/plugins",
            "/v1.41/volumes",
        ] {
            assert!(get(path).is_err(), "{path}");
        }
        for path in [
            "/build/prune",
            "/build/cancel",
            "/images/load",
            "/images/x/push",
            "/images/tag",
            "/commit",
            "/containers/db/update",
            "/grpc",
            "/session",
        ] {
            assert!(route(&Method::POST, path).is_err(), "{path}");
        }
        assert!(route(&Method::POST, "/containers/prune").is_err());
        let untag = Route::Untag { name: "a/b:1".into() };
        assert_eq!(route(&Method::DELETE, "/images/a/b:1").map(|call| call.route), Ok(untag));
        let told = route(&Method::POST, "/v1.41/session").expect_err("refused").text;
        assert!(told.contains("DOCKER_BUILDKIT=0"), "{told}");
    }

    #[test]
    fn parameters_that_are_not_known_are_refused() {
        let parameters = |query: &str| Route::Look.parameters(query);
        assert_eq!(parameters("t=5&signal=KILL").map(|all| all.len()), Ok(2));
        assert_eq!(parameters("checkpoint=&t=5").map(|all| all.len()), Ok(1), "an empty one says nothing");
        assert_eq!(parameters("link=False&trunc_cmd=0&v=True").map(|all| all.len()), Ok(1));
        assert!(parameters("link=0&link=1").is_err());
        assert!(parameters("checkpoint=a&checkpoint-dir=%2Fetc").is_err());
        assert!(parameters("fromImage=a").is_err(), "another call's");
        assert!(Route::Pull.parameters("fromSrc=http%3A%2F%2Fx").is_err());
        assert_eq!(Route::Pull.parameters("fromImage=a&tag=b&fromSrc=").map(|all| all.len()), Ok(2));
        assert!(Route::Build.parameters("remote=http%3A%2F%2Fx").is_err());
    }
}
