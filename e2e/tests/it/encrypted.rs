//! Redis and PostgreSQL over TLS, with passwords: who they are is proven, and no password is ever written down.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use doorbuster_e2e::backend::Backend;
use doorbuster_e2e::ports::free_port;
use doorbuster_e2e::postgres::Postgres;
use doorbuster_e2e::process::{Launch, Process};
use doorbuster_e2e::server::{Running, Server, log_path};
use doorbuster_e2e::{Operator, Programs, http, operator};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{Folder, eventually};

const POSTGRES_PASSWORD: &str = "postgres-hunter2";
const REDIS_PASSWORD: &str = "redis-hunter2";
const TOKEN: &str = "operators-hunter2";

/// One authority, the certificate it gave to `localhost`, and an authority that nobody has heard of.
struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    fn make(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let authority = || {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let (ours, unknown) = (authority(), authority());
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&key, &ours).unwrap();
        let made = Self { folder };
        fs::write(made.file("ca.pem"), ours.pem()).unwrap();
        fs::write(made.file("unknown-ca.pem"), unknown.pem()).unwrap();
        fs::write(made.file("server.pem"), server.pem()).unwrap();
        fs::write(made.file("server.key"), key.serialize_pem()).unwrap();
        made
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn path(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }
}

/// A Redis that speaks TLS only, to one user who may do what `config.default.toml` says a backend needs.
struct SecretRedis {
    program: PathBuf,
    port: u16,
    certificates: Vec<String>,
    kind: Kind,
}

enum Kind {
    Single,
    /// The only node of a cluster, which keeps its file in this folder.
    Cluster(PathBuf),
}

impl Server for SecretRedis {
    fn name(&self) -> &str {
        "redis"
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let port = self.port.to_string();
        let manual = include_str!("../../../backend/config.default.toml");
        let rights = manual.lines().find_map(|line| line.split_once("SETUSER doorbuster on >PASSWORD ")).unwrap().1;
        let launch = Launch::new(&self.program)
            .args(["--port", "0", "--bind", "127.0.0.1", "--tls-port", &port, "--tls-auth-clients", "no"])
            .args(["--save", "", "--appendonly", "no", "--maxmemory-policy", "noeviction"])
            .args(&self.certificates);
        let (launch, more) = match &self.kind {
            Kind::Single => (launch, ""),
            Kind::Cluster(folder) => {
                fs::create_dir_all(folder)?;
                let (id, bus) = ("d".repeat(40), free_port()?.to_string());
                let node = format!("{id} 127.0.0.1:{port}@{bus} myself,master - 0 0 1 connected 0-16383\n");
                fs::write(folder.join("nodes.conf"), node + "vars currentEpoch 1 lastVoteEpoch 0\n")?;
                let launch = launch
                    .args(["--dir", &folder.display().to_string(), "--cluster-enabled", "yes", "--tls-cluster", "yes"])
                    .args(["--cluster-port", &bus, "--cluster-announce-hostname", "localhost"])
                    .args(["--cluster-preferred-endpoint-type", "hostname"]);
                (launch, manual.lines().find_map(|line| line.split_once("the ACL user also needs: ")).unwrap().1)
            }
        };
        Ok(launch
            .args(["--user", "default", "off", "--user", "doorbuster", "on", &format!(">{REDIS_PASSWORD}")])
            .args(rights.split_whitespace().chain(more.split_whitespace())))
    }

    fn probe(&self) -> anyhow::Result<()> {
        Ok(TcpStream::connect(("127.0.0.1", self.port)).map(drop)?)
    }
}

/// A PostgreSQL that lets nobody in without TLS.
struct SecretPostgres {
    plain: Postgres,
    certificates: PathBuf,
}

impl Server for SecretPostgres {
    fn name(&self) -> &str {
        self.plain.name()
    }

    fn launch(&self) -> anyhow::Result<Launch> {
        let launch = self.plain.launch()?;
        // Its account owns its folder, and must own the key.
        let home = &self.plain.home;
        let owner = fs::metadata(home.join("data"))?;
        let mut settings = vec!["-c".to_owned(), "ssl=on".to_owned()];
        for (setting, name) in
            [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key"), ("hba_file", "hba.conf")]
        {
            let file = home.join(name);
            if name == "hba.conf" {
                fs::write(&file, "hostssl all all 127.0.0.1/32 scram-sha-256\n")?;
            } else {
                fs::copy(self.certificates.join(name), &file)?;
            }
            fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
            chown(&file, Some(owner.uid()), Some(owner.gid()))?;
            settings.extend(["-c".to_owned(), format!("{setting}={}", file.display())]);
        }
        Ok(launch.args(settings))
    }

    fn probe(&self) -> anyhow::Result<()> {
        self.plain.probe()
    }
}

struct Stores {
    programs: Programs,
    certificates: Certificates,
    redis_scheme: &'static str,
    redis_port: u16,
    postgres_port: u16,
    logs: PathBuf,
    _running: [Running; 2],
    // Last: servers end before their files do.
    _folder: Folder,
}

impl Stores {
    fn start(name: &str) -> Self {
        Self::start_in(Folder::new(name), Kind::Single)
    }

    /// With a Redis Cluster.
    fn start_clustered(name: &str) -> Self {
        let folder = Folder::new(name);
        let kind = Kind::Cluster(folder.path().join("node"));
        Self::start_in(folder, kind)
    }

    fn start_in(folder: Folder, kind: Kind) -> Self {
        let programs = Programs::from_env().unwrap();
        let certificates = Certificates::make(folder.path().join("certificates"));
        let (redis_port, postgres_port) = (free_port().unwrap(), free_port().unwrap());
        let redis_scheme = match kind {
            Kind::Single => "rediss",
            Kind::Cluster(_) => "rediss+cluster",
        };
        let redis = SecretRedis {
            kind,
            program: programs.redis_server.clone(),
            port: redis_port,
            certificates: [("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")]
                .into_iter()
                .flat_map(|(setting, file)| [format!("--tls-{setting}-file"), certificates.path(file)])
                .collect(),
        };
        let postgres = SecretPostgres {
            plain: Postgres {
                bin: programs.postgres_bin.clone(),
                home: folder.path().join("postgres"),
                port: postgres_port,
                password: POSTGRES_PASSWORD.to_owned(),
            },
            certificates: certificates.folder.clone(),
        };
        let logs = folder.path().to_owned();
        let running =
            [Running::start(Box::new(redis), &logs).unwrap(), Running::start(Box::new(postgres), &logs).unwrap()];
        Self {
            programs,
            certificates,
            redis_scheme,
            redis_port,
            postgres_port,
            logs,
            _running: running,
            _folder: folder,
        }
    }

    fn redis_url(&self) -> String {
        format!("{}://doorbuster:{REDIS_PASSWORD}@localhost:{}", self.redis_scheme, self.redis_port)
    }

    fn database_url(&self) -> String {
        format!("postgres://doorbuster:{POSTGRES_PASSWORD}@localhost:{}/postgres", self.postgres_port)
    }

    /// A backend with these settings on top of those that work.
    fn backend(&self, name: &str, settings: &[(&str, String)]) -> Backend {
        let mut all = vec![
            ("redis_url", self.redis_url()),
            ("redis_ca_file", self.certificates.path("ca.pem")),
            ("database_url", self.database_url()),
            ("database_ca_file", self.certificates.path("ca.pem")),
            ("admin_token", TOKEN.to_owned()),
            ("edge_token", TOKEN.replace("operators", "gateways")),
            ("log", "debug".to_owned()),
        ];
        for (key, value) in settings {
            all.retain(|(known, _)| known != key);
            all.push((key, value.clone()));
        }
        Backend {
            name: name.to_owned(),
            program: self.programs.backend.clone(),
            public_port: free_port().unwrap(),
            ops_port: free_port().unwrap(),
            settings: all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }

    /// What a backend wrote.
    fn log(&self, name: &str) -> String {
        let log = fs::read_to_string(log_path(&self.logs, name)).unwrap();
        assert!(!log.contains("hunter2"), "{log}");
        log
    }
}

fn issue_one(backend: &Backend) {
    let operator = Operator::new(backend.ops_url(), TOKEN.to_owned());
    // A slow machine hears `unavailable` now and then.
    eventually(Duration::from_secs(60), "the campaign", || {
        operator.put_campaign("spring", &operator::open_all_day(100)).is_ok()
    });
    let url = format!("{}/v1/coupon/issue?campaign=spring", backend.url());
    eventually(Duration::from_secs(60), "a coupon", || {
        let told = http::send("POST", &url, &[("x-user-id", &backend.name)], None).unwrap();
        [201, 409].contains(&told.status)
    });
}

#[test]
fn both_stores_over_tls_with_passwords() {
    let stores = Stores::start("encrypted");
    let by_file = stores.backend("by-file", &[]);
    let running = Running::start(Box::new(by_file.clone()), &stores.logs).unwrap();
    issue_one(&by_file);
    drop(running);
    stores.log("by-file");

    let root = stores.certificates.path("ca.pem");
    let url = format!("{}?sslmode=verify-full&sslrootcert={root}", stores.database_url());
    let by_url = stores.backend("by-url", &[("database_url", url), ("database_ca_file", String::new())]);
    let running = Running::start(Box::new(by_url.clone()), &stores.logs).unwrap();
    issue_one(&by_url);
    drop(running);
    stores.log("by-url");
}

#[test]
fn a_cluster_over_tls_with_a_password() {
    let stores = Stores::start_clustered("encrypted-cluster");
    let backend = stores.backend("clustered", &[]);
    let running = Running::start(Box::new(backend.clone()), &stores.logs).unwrap();
    issue_one(&backend);
    drop(running);
    stores.log("clustered");
}

#[test]
fn a_redis_that_is_not_who_it_should_be_gets_nothing() {
    let stores = Stores::start("impostor-redis");
    let port = stores.redis_port;
    let unknown = stores.certificates.path("unknown-ca.pem");
    for (name, key, value, expected) in [
        ("other-name", "redis_url", stores.redis_url().replace("localhost", "127.0.0.1"), "certificate"),
        ("other-authority", "redis_ca_file", unknown, "certificate"),
        (
            "other-password",
            "redis_url",
            format!("rediss://doorbuster:not-hunter2@localhost:{port}"),
            "authentication failed",
        ),
        ("no-user", "redis_url", format!("rediss://localhost:{port}"), "uthentication"),
    ] {
        let backend = stores.backend(name, &[(key, value)]);
        let log = log_path(&stores.logs, name);
        let _process = Process::spawn(&backend.launch().unwrap(), &log).unwrap();
        let ready = format!("{}/readyz", backend.ops_url());
        // Now and then it says that a connection failed a moment ago, and not why.
        eventually(Duration::from_secs(60), expected, || {
            let Ok(told) = http::get(&ready) else { return false };
            assert_eq!(told.status, 503, "{name}: {}", told.body);
            assert!(!told.body.contains("hunter2"), "{}", told.body);
            told.body.contains(expected) && told.body.contains("\"postgres\":\"ok\"")
        });
        stores.log(name);
    }
}

#[test]
fn a_postgresql_that_is_not_who_it_should_be_gets_nothing() {
    let stores = Stores::start("impostor-postgres");
    let unknown = stores.certificates.path("unknown-ca.pem");
    let wrong = stores.database_url().replace(POSTGRES_PASSWORD, "not-hunter2");
    for (name, key, value, expected) in [
        ("other-name", "database_url", stores.database_url().replace("localhost", "127.0.0.1"), "certificate"),
        ("other-authority", "database_ca_file", unknown, "certificate"),
        ("other-password", "database_url", wrong, "password authentication failed"),
    ] {
        let backend = stores.backend(name, &[(key, value)]);
        let log = log_path(&stores.logs, name);
        let mut process = Process::spawn(&backend.launch().unwrap(), &log).unwrap();
        let mut status = None;
        eventually(Duration::from_secs(60), name, || {
            status = process.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.unwrap().code(), Some(1), "{name}");
        let log = stores.log(name);
        assert!(log.contains("database_url") && log.contains(expected), "{name}: {log}");
    }
}

/// Certificates that make no sense are refused before anything is served.
#[test]
fn a_file_without_certificates_is_refused() {
    let folder = Folder::new("no-certificates");
    let broken = folder.path().join("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let programs = Programs::from_env().unwrap();
    let output = std::process::Command::new(&programs.backend)
        .env_clear()
        .env("DOORBUSTER_DATABASE_URL", "postgres://localhost/none")
        .env("DOORBUSTER_DATABASE_CA_FILE", Path::new("/dev/null"))
        .env("DOORBUSTER_REDIS_URL", "rediss://localhost")
        .env("DOORBUSTER_REDIS_CA_FILE", &broken)
        .env("DOORBUSTER_ADMIN_TOKEN", TOKEN)
        .env("DOORBUSTER_EDGE_TOKEN", TOKEN.replace("operators", "gateways"))
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(error.contains("database_ca_file: /dev/null holds no certificate"), "{error}");
}
