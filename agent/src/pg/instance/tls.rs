//! The key and the certificate of an instance's postgres: made here once, self-signed, told to other
//! members who pin it. The key leaves the machine never.

use lockstep_model::NodeName;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use zeroize::Zeroizing;

use super::conf::{CERTIFICATE_FILE, KEY_FILE};
use super::files;
use super::layout::Layout;

/// Its certificate, PEM; made with its key when there is none.
pub fn ensure(layout: &Layout, me: &NodeName) -> Result<String, String> {
    let (key, certificate) = (layout.private.join(KEY_FILE), layout.private.join(CERTIFICATE_FILE));
    let there = files::read(&key, &layout.owner)?.map(Zeroizing::new).is_some();
    if let (true, Some(text)) = (there, files::read(&certificate, &layout.owner)?) {
        return Ok(text);
    }
    let fail = |error: rcgen::Error| format!("cannot make postgres' certificate: {error}");
    let pair = KeyPair::generate().map_err(fail)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(fail)?;
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, me.as_str());
    params.distinguished_name = name;
    let made = params.self_signed(&pair).map_err(fail)?.pem();
    let pem = Zeroizing::new(pair.serialize_pem());
    // The certificate last: with it both are there.
    files::write(&key, &pem, 0o600, &layout.owner)?;
    files::write(&certificate, &made, 0o600, &layout.owner)?;
    Ok(made)
}
