//! The authority, from its folder to leaves that peers take or refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU64, Ordering};

use pilotfish_identity::{Refused, Usage, verify_peer};
use pilotfish_testkit::ca::{Ca, Leaf};
use rcgen::{CertificateParams, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, SanType};
use rustls::pki_types::pem::PemObject;

use super::*;

const DAY: u64 = 24 * 3600;

struct Time(Arc<AtomicU64>);

impl Time {
    fn now() -> Time {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Time(Arc::new(AtomicU64::new(now.as_secs())))
    }

    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn get(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn clock(&self) -> Clock {
        let time = Time(self.0.clone());
        Arc::new(move || time.get())
    }
}

fn agent() -> SpiffeId {
    SpiffeId::parse("spiffe://cluster.local/ns/default/agent/planner").unwrap()
}

fn request() -> KeyAndRequest {
    KeyAndRequest::new(&agent()).unwrap()
}

fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect()
}

fn verify(authority: &Authority, pem: &str, now: SystemTime) -> Result<SpiffeId, Refused> {
    let bundles = Bundles::one(authority.domain(), authority.root_pem()).unwrap();
    verify_peer(&chain(pem), &bundles, Usage::Client, now)?;
    verify_peer(&chain(pem), &bundles, Usage::Server, now).map(|peer| peer.id)
}

#[test]
fn the_first_start_makes_an_authority_and_the_next_finds_it() {
    let data = tempfile::tempdir().unwrap();
    let first = Authority::open(data.path(), None).unwrap();
    let signed = first.sign(&request().csr_pem, &agent(), LEAF).unwrap();
    assert_eq!(verify(&first, &signed.chain, SystemTime::now()), Ok(agent()));
    let again = Authority::open(data.path(), None).unwrap();
    assert_eq!((first.fingerprint(), first.ends()), (again.fingerprint(), again.ends()));
    assert_eq!(verify(&again, &signed.chain, SystemTime::now()), Ok(agent()));
    for entry in fs::read_dir(data.path().join("ca")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    let mode = fs::metadata(data.path().join("ca")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let (root, issuer) = again.describe().unwrap();
    assert_eq!(root.fingerprint, again.fingerprint());
    assert!(issuer.subject.contains("cluster.local intermediate"), "{}", issuer.subject);
}

#[test]
fn the_trust_domain_is_chosen_once() {
    let data = tempfile::tempdir().unwrap();
    let (one, two) = (TrustDomain::parse("one.test").unwrap(), TrustDomain::parse("two.test").unwrap());
    assert_eq!(*Authority::open(data.path(), Some(&one)).unwrap().domain(), one);
    assert_eq!(*Authority::open(data.path(), None).unwrap().domain(), one);
    let error = Authority::open(data.path(), Some(&two)).unwrap_err();
    assert_eq!(error, CaError::OtherDomain { stored: one.clone(), wanted: two });
    let authority = Authority::open(data.path(), Some(&one)).unwrap();
    assert!(matches!(authority.sign(&request().csr_pem, &agent(), LEAF), Err(CaError::Foreign(_))));
}

#[test]
fn a_leaf_has_what_the_authority_says_and_nothing_of_the_request() {
    let data = tempfile::tempdir().unwrap();
    let authority = Authority::open(data.path(), None).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut wanted = CertificateParams::default();
    wanted.subject_alt_names = vec![
        SanType::URI("spiffe://cluster.local/ns/default/agent/admin".try_into().unwrap()),
        SanType::DnsName("bank.example".try_into().unwrap()),
    ];
    wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let request = wanted.serialize_request(&key).unwrap().pem().unwrap();
    let signed = authority.sign(&request, &agent(), LEAF).unwrap();
    assert_eq!(verify(&authority, &signed.chain, SystemTime::now()), Ok(agent()));
    let chain = chain(&signed.chain);
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    assert!(names.critical, "the subject is empty (RFC 5280, 4.2.1.6)");
    assert!(!leaf.is_ca());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let life = leaf.validity();
    assert!((life.not_before.timestamp() - (now - 300)).abs() < 10);
    assert!((life.not_after.timestamp() - (now + DAY as i64)).abs() < 10);
    let again = authority.sign(&request, &agent(), LEAF).unwrap();
    let (_, other) = x509_parser::parse_x509_certificate(&self::chain(&again.chain)[0])
        .map(|(_, one)| ((), one.raw_serial().to_vec()))
        .unwrap();
    assert_ne!(leaf.raw_serial(), other, "serial numbers are never used twice");
}

#[test]
fn requests_are_taken_with_keys_that_are_fit() {
    let data = tempfile::tempdir().unwrap();
    let authority = Authority::open(data.path(), None).unwrap();
    let with = |key: KeyPair| {
        let request = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        authority
            .sign(&request, &agent(), LEAF)
            .map(|signed| verify(&authority, &signed.chain, SystemTime::now()))
    };
    for fit in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        assert_eq!(with(KeyPair::generate_for(fit).unwrap()).unwrap(), Ok(agent()));
    }
    assert!(matches!(with(KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap()), Err(CaError::Request(_))));
    let good = request().csr_pem;
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    let pem = |der: &[u8]| {
        let body = data_encoding::BASE64.encode(der);
        format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
    };
    assert!(authority.check_request(&pem(&der)).is_ok());
    for at in 0..der.len() {
        let mut flipped = der.to_vec();
        flipped[at] ^= 1;
        // The encoding of the signature leaves some freedom; what is signed leaves none.
        if let Ok(key) = issue::key_of_request(&pem(&flipped)) {
            assert_eq!(key, issue::key_of_request(&good).unwrap(), "byte {at}");
        }
        assert!(authority.check_request(&pem(&der[..at])).is_err(), "cut at {at}");
    }
    let longer = [&der[..], &[0]].concat();
    for bad in ["", "-----BEGIN CERTIFICATE REQUEST-----", &pem(&longer), &"A".repeat(1 << 20)] {
        assert!(matches!(authority.sign(bad, &agent(), LEAF), Err(CaError::Request(_))));
    }
}

#[test]
fn without_the_root_key_everything_goes_on_until_the_intermediate_ends() {
    let (data, time) = (tempfile::tempdir().unwrap(), Time::now());
    let authority = Authority::open_at(data.path(), None, time.clock()).unwrap();
    let kept = data.path().join("kept.key");
    fs::rename(data.path().join("ca/root.key"), &kept).unwrap();
    let authority = {
        drop(authority);
        Authority::open_at(data.path(), None, time.clock()).unwrap()
    };
    let sign = || authority.sign(&request().csr_pem, &agent(), LEAF);
    time.pass(250 * DAY);
    assert_eq!(authority.upkeep(), Ok(Upkeep::Fine));
    time.pass(60 * DAY);
    assert!(matches!(authority.upkeep(), Ok(Upkeep::Warning(why)) if why.contains("root.key")));
    assert!(sign().is_ok());
    // The last leaves end with the intermediate.
    time.pass(54 * DAY + DAY / 2);
    let last = sign().unwrap();
    assert_eq!(last.expires, authority.ends());
    assert_eq!(verify(&authority, &last.chain, time.get()), Ok(agent()));
    time.pass(DAY);
    assert_eq!(sign().unwrap_err(), CaError::Ended);
    assert_eq!(Authority::open_at(data.path(), None, time.clock()).unwrap_err(), CaError::Ended);
    // With the key back it makes a new intermediate; what sidecars trust stays.
    fs::rename(&kept, data.path().join("ca/root.key")).unwrap();
    let back = Authority::open_at(data.path(), None, time.clock()).unwrap();
    assert_eq!(back.fingerprint(), authority.fingerprint());
    let signed = back.sign(&request().csr_pem, &agent(), LEAF).unwrap();
    assert_eq!(verify(&authority, &signed.chain, time.get()), Ok(agent()));
}

#[test]
fn the_intermediate_is_renewed_before_its_end() {
    let (data, time) = (tempfile::tempdir().unwrap(), Time::now());
    let authority = Authority::open_at(data.path(), None, time.clock()).unwrap();
    let old = authority.sign(&request().csr_pem, &agent(), LEAF).unwrap();
    let ends = authority.ends();
    time.pass(244 * DAY);
    assert_eq!(authority.upkeep(), Ok(Upkeep::Fine));
    time.pass(2 * DAY);
    assert_eq!(authority.upkeep(), Ok(Upkeep::Renewed));
    assert!(authority.ends() > ends + Duration::from_secs(200 * DAY));
    let new = authority.sign(&request().csr_pem, &agent(), LEAF).unwrap();
    assert_eq!(verify(&authority, &new.chain, time.get()), Ok(agent()));
    let day_one = time.get() - Duration::from_secs(246 * DAY);
    assert_eq!(verify(&authority, &old.chain, day_one), Ok(agent()), "one root vouches for both");
    assert_eq!(Authority::open_at(data.path(), None, time.clock()).unwrap().ends(), authority.ends());
    // After almost ten years the root itself is what ends.
    time.pass(3300 * DAY);
    assert_eq!(authority.upkeep(), Ok(Upkeep::Renewed));
    time.pass(60 * DAY);
    assert!(matches!(authority.upkeep(), Ok(Upkeep::Warning(why)) if why.contains("trust add")));
}

fn bring(certificates: &str, key: &str) -> Result<Authority, CaError> {
    let data = tempfile::tempdir().unwrap();
    let (chain, key_file) = (data.path().join("ca.pem"), data.path().join("ca.key"));
    fs::write(&chain, certificates).unwrap();
    fs::write(&key_file, key).unwrap();
    Authority::bring(data.path(), None, &chain, &key_file)
}

#[test]
fn a_brought_intermediate_signs_when_peers_would_take_its_leaves() {
    let ca = Ca::new("cluster.local");
    let chain = ca.intermediate_pem() + &ca.root_pem();
    let authority = bring(&chain, &ca.intermediate_key_pem()).unwrap();
    assert_eq!(
        authority.root_pem().parse::<String>().unwrap().trim(),
        ca.root_pem().replace("\r\n", "\n").trim()
    );
    let signed = authority.sign(&request().csr_pem, &agent(), LEAF).unwrap();
    assert_eq!(verify(&authority, &signed.chain, SystemTime::now()), Ok(agent()));
    assert_eq!(authority.upkeep(), Ok(Upkeep::Fine));

    let said = |chain: &str, key: &str| bring(chain, key).unwrap_err().to_string();
    let key = ca.intermediate_key_pem();
    assert!(said(&ca.intermediate_pem(), &key).contains("append the root"));
    assert!(said(&ca.root_pem(), &ca.root_key_pem()).contains("issue-intermediate"));
    assert!(said("", &key).contains("no certificate"));
    assert!(said(&chain, "").contains("private key"));
    assert!(said(&chain, &ca.root_key_pem()).contains("refuse"));
    let stranger = Ca::new("cluster.local");
    assert!(said(&(ca.intermediate_pem() + &stranger.root_pem()), &key).contains("no root of cluster.local"));
    let leaf = ca.issue(&Leaf::agent("cluster.local", "default", "a"));
    assert!(!said(&(leaf.chain + &ca.root_pem()), &leaf.key).is_empty());
    let ended = Ca::lasting("cluster.local", -7200, -3600);
    assert!(matches!(
        bring(&(ended.intermediate_pem() + &ended.root_pem()), &ended.intermediate_key_pem()),
        Err(CaError::Ended)
    ));
    assert!(!said(&chain, &key.replacen("M", "!", 3)).contains(&key[40..60]));
}

#[test]
fn several_control_planes_share_a_root_and_no_key() {
    let (data, out, other) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Authority::open(data.path(), None).unwrap();
    let now = SystemTime::now();
    let made = offline::Root::of_data(data.path()).unwrap().issue_into(out.path(), None, now, YEAR).unwrap();
    assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Authority::bring(other.path(), None, &made.certificates, &made.key).unwrap();
    assert_eq!(first.fingerprint(), second.fingerprint());
    let signed = second.sign(&request().csr_pem, &agent(), LEAF).unwrap();
    assert_eq!(verify(&first, &signed.chain, now), Ok(agent()));
    // It signs leaves, not authorities; and a key that is there is never written over.
    let root = data.path().join("ca/root.pem");
    let further = offline::Root::read(&root, &made.key).unwrap();
    assert!(matches!(
        further.issue_into(&other.path().join("x"), None, now, YEAR),
        Err(CaError::Unusable(_))
    ));
    let again = offline::Root::of_data(data.path()).unwrap().issue_into(out.path(), None, now, YEAR);
    assert!(matches!(again, Err(CaError::File { .. })));
    fs::remove_file(data.path().join("ca/root.key")).unwrap();
    assert!(offline::Root::of_data(data.path()).is_err());
}

#[test]
fn a_root_is_made_to_replace_another() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
    let now = SystemTime::now();
    let root = offline::new_root_into(out.path(), &domain, now).unwrap();
    let root = offline::Root::read(&root.certificates, &root.key).unwrap();
    let made = root.issue_into(out.path(), None, now, YEAR).unwrap();
    let authority = Authority::bring(data.path(), None, &made.certificates, &made.key).unwrap();
    let signed = authority.sign(&request().csr_pem, &agent(), LEAF).unwrap();
    assert_eq!(verify(&authority, &signed.chain, now), Ok(agent()));
}

#[test]
fn the_control_planes_own_certificate_is_enough_to_join_by_fingerprint() {
    let data = tempfile::tempdir().unwrap();
    let authority = Authority::open(data.path(), None).unwrap();
    let names = [Name::Dns("control.example".into()), Name::Ip([127, 0, 0, 1].into())];
    let own = authority.server_credentials("one", &names).unwrap();
    assert_eq!(own.id.as_control(), Some("one"));
    assert_eq!(fingerprint(own.chain.last().unwrap()), authority.root());
    let bundles = Bundles::one(authority.domain(), authority.root_pem()).unwrap();
    assert!(own.self_check(&bundles, SystemTime::now()).is_ok());
    assert!(authority.server_credentials("a/b", &[]).is_err());
}

#[test]
fn a_folder_that_cannot_be_written_is_a_clear_error_and_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    // Not by permissions: root may write everywhere.
    fs::write(data.path().join("ca"), "a file").unwrap();
    let error = Authority::open(data.path(), None).unwrap_err();
    assert!(matches!(&error, CaError::File { path, .. } if path.ends_with("ca")), "{error}");

    let data = tempfile::tempdir().unwrap();
    Authority::open(data.path(), None).unwrap();
    for (broken, text) in [("root.pem", ""), ("intermediate.pem", "nonsense"), ("trust-domain", "UPPER")] {
        let path = data.path().join("ca").join(broken);
        let good = fs::read(&path).unwrap();
        fs::write(&path, text).unwrap();
        assert!(Authority::open(data.path(), None).is_err(), "{broken}");
        fs::write(&path, good).unwrap();
    }
    fs::remove_file(data.path().join("ca/root.pem")).unwrap();
    let error = Authority::open(data.path(), None).unwrap_err();
    assert!(error.to_string().contains("backup"), "{error}");
}
