//! What authorization costs the sidecar that decides: nothing to decide, a thousand rules, and a record of every decision; and how
//! long ten thousand roles take to reach a sidecar.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::fleet::control::Control;
use crate::peers::Peer;
use crate::process::{Place, Process};
use crate::work::Values;

/// AuthorizationPolicies, and rules in each.
const POLICIES: usize = 100;
const RULES: usize = 10;
/// Every fifth policy refuses what matches it.
const DENIES: usize = 5;
/// Roles of a mesh.
const ROLES: usize = 10_000;
/// Pushes that are measured.
const PUSHES: usize = 5;

/// What the deciding sidecar runs with.
pub fn flags(peer: Peer, dir: &Path) -> String {
    match peer {
        Peer::PilotfishAudited => format!(" --audit all --audit-dir {}", dir.join("audit").display()),
        _ => " --audit off".to_owned(),
    }
}

/// What it decides by.
pub fn documents(peer: Peer) -> String {
    if peer == Peer::PilotfishOpen {
        return String::new();
    }
    (0..POLICIES).map(policy).collect()
}

/// Ten rules: other agents' paths and methods, headers of some, addresses of a few. The caller of the workload is let in by the last
/// rule of the last policy; no DENY is about it, but all are about its paths.
fn policy(number: usize) -> String {
    let denies = number.is_multiple_of(DENIES);
    let mut text = format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: policy-{number}, namespace: bench}}\nspec:\n  \
         action: {}\n  rules:\n",
        if denies { "DENY" } else { "ALLOW" }
    );
    for rule in 0..RULES {
        let agent = number * RULES + rule;
        let last = number + 1 == POLICIES && rule + 1 == RULES;
        let principal = match last {
            true => "mesh.local/ns/bench/agent/app".to_owned(),
            false => format!("mesh.local/ns/team-{}/agent/agent-{agent}", agent % 40),
        };
        let path = match (last, rule % 3) {
            (true, _) => "/agents/*".to_owned(),
            (_, 0) => format!("/agents/{agent}/*"),
            (_, 1) => format!("/v1/tenants/{{*}}/agents/{agent}/**"),
            _ => "/agents/*".to_owned(),
        };
        let path = path.replace("/**", "/{**}");
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "  - from:\n    - source: {{principals: ['{principal}', 'mesh.local/ns/ops-{agent}/agent/*']}}\n    to:\n    - operation: \
             {{methods: [GET, POST], paths: ['{path}']}}\n"
        );
        if rule % 4 == 3 && !last {
            let _ = write!(
                text,
                "    when:\n    - {{key: 'request.headers[x-tenant]', values: [tenant-{agent}]}}\n"
            );
        }
    }
    text
}

/// All roles, in two policies: a document has a largest size. `turn` makes them others.
fn roles(turn: usize) -> String {
    let half = |part: usize| {
        let mut text = format!(
            "---\napiVersion: v1\nkind: AgentSecurityPolicy\nmetadata: {{name: roles-{part}, namespace: bench}}\nspec:\n  \
             authorization:\n    model: rbac\n    roles:\n"
        );
        for role in part * ROLES / 2..(part + 1) * ROLES / 2 {
            let _ = writeln!(
                text,
                "    - {{name: agent-{role}, permissions: ['nlp:process', 'knowledge:read-{turn}'], resources: \
                 ['conversations/{role}/*', 'knowledge-base/public/*']}}"
            );
        }
        text
    };
    half(0) + &half(1)
}

/// Until a sidecar decides by ten thousand new roles, from the moment when `pilotfish apply` has stored them.
///
/// # Errors
/// Something does not start, or does not take them.
pub fn run(binary: &Path, dir: &Path, port: u16) -> io::Result<Values> {
    let dir = dir.join("roles");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let (first, second) = (Place { core: 0, real_time: false }, Place { core: 1, real_time: false });
    let control = Control::start(binary, &dir, port, first)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let token = dir.join("token");
    fs::write(&token, runtime.block_on(control.token("bench", "app"))?)?;
    let outbound = port + 1;
    let flags = format!(
        "--control https://127.0.0.1:{port} --token-file {} --agent app --namespace bench --state-dir {} --outbound \
         127.0.0.1:{outbound} --inbound 127.0.0.1:0 --admin 127.0.0.1:0",
        token.display(),
        dir.join("state").display()
    );
    let proxy = binary.with_file_name("pilotfish-proxy").display().to_string();
    let command: Vec<String> =
        [proxy].into_iter().chain(flags.split_whitespace().map(str::to_owned)).collect();
    let mut sidecar = Process::start(second, &command, &dir.join("sidecar.log"))?;
    sidecar.wait_for_port(outbound)?;
    let mut pushed = Vec::new();
    for turn in 0..PUSHES {
        pushed.push(runtime.block_on(control.push(&roles(turn)))?.as_secs_f64() * 1e3);
    }
    pushed.sort_by(f64::total_cmp);
    Ok(Values::from([
        ("roles_ms".to_owned(), pushed[pushed.len() / 2]),
        ("roles_max_ms".to_owned(), pushed[pushed.len() - 1]),
    ]))
}
