"""Command lines in events: secrets masked, one printable line, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from needfire_client.masking import COMMAND_CHARACTERS_MAX, command_text

SECRET = "Xk7qz"

secrets = st.text("QXZ0123456789+", min_size=4, max_size=30)
words = st.text("abcdefgh /.-", max_size=12)


def line(*arguments: str) -> bytes:
    return b"".join(each.encode() + b"\0" for each in arguments)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["tool", "--password=Xk7qz"], "tool --password=***"),
        (["tool", "--password", "Xk7qz", "-v"], "tool --password *** -v"),
        (["tool", "--db-passwd=Xk7qz"], "tool --db-passwd=***"),
        (["tool", "--token", "Xk7qz"], "tool --token ***"),
        (["tool", "token=Xk7qz"], "tool token=***"),
        (["tool", "--api-key=Xk7qz"], "tool --api-key=***"),
        (["tool", "--client_secret=Xk7qz"], "tool --client_secret=***"),
        (["env", "PGPASSWORD=Xk7qz", "psql"], "env PGPASSWORD=*** psql"),
        (["env", "AWS_SECRET_ACCESS_KEY=Xk7qz"], "env AWS_SECRET_ACCESS_KEY=***"),
        (["openssl", "-passin", "pass:Xk7qz"], "openssl -passin pass:***"),
        (["curl", "-H", "Authorization: Bearer Xk7qz"], "curl -H Authorization:***"),
        (["curl", "-u", "me:Xk7qz", "http://h/"], "curl -u *** http://h/"),
        (["/usr/bin/mysql", "-pXk7qz", "db"], "/usr/bin/mysql -p*** db"),
        (["sshpass", "-p", "Xk7qz", "ssh"], "sshpass -p *** ssh"),
        (["git", "clone", "https://me:Xk7qz@host/x"], "git clone https://***@host/x"),
        (["sudo", "mysql", "-uroot", "-pXk7qz", "db"], "sudo mysql -uroot -p*** db"),
        (["sh", "-c", "cd x; mysql -pXk7qz db"], "sh -c cd x; mysql -p*** db"),
        (["sh", "-c", "curl -u me:Xk7qz http://h/"], "sh -c curl -u *** http://h/"),
        (["curl", "-su", "me:Xk7qz", "http://h/"], "curl -su *** http://h/"),
        (["curl", "-sume:Xk7qz"], "curl -su***"),
        (["curl", "--user", "me:Xk7qz", "-v"], "curl --user *** -v"),
        (["curl", "--proxy-user=me:Xk7qz"], "curl --proxy-user=***"),
        (["sh", "-c", "tool --password Xk7qz -v"], "sh -c tool --password ***"),
        (
            ["sh", "-c", "cd x;vault login --token 'Xk7qz Xk7qz'"],
            "sh -c cd x;vault login --token ***",
        ),
        (["sh", "-c", "tool\n--password\nXk7qz\n"], "sh -c tool\\x0a--password ***"),
        (["sh", "-c", "cd x\nmysql -pXk7qz db"], "sh -c cd x\\x0amysql -p*** db"),
        (["useradd", "-p", "Xk7qz", "bob"], "useradd -p *** bob"),
        (["zip", "-P", "Xk7qz", "a"], "zip -P *** a"),
        (["7z", "a", "-pXk7qz", "x"], "7z a -p*** x"),
        (["docker", "login", "-u", "me", "-p", "Xk7qz"], "docker login -u me -p ***"),
        (["ssh-keygen", "-N", "Xk7qz", "-f", "k"], "ssh-keygen -N *** -f k"),
        (["openssl", "enc", "-pbkdf2", "-k", "Xk7qz"], "openssl enc -pbkdf2 -k ***"),
        (["ldapadd", "-x", "-w", "Xk7qz"], "ldapadd -x -w ***"),
        (["curl", "-b", "session=Xk7qz", "h"], "curl -b *** h"),
        (["nmcli", "connect", "x", "password", "Xk7qz"], "nmcli connect x password ***"),
        (["tool", "ghp_Xk7qzXk7qzXk7qzXk7qz"], "tool ***"),
        (["tool", "a=eyJhbGciOiJub25lIn0.Xk7qz.Xk7qz"], "tool a=***"),
        (["sh", "-c", "export TOKEN=Xk7qz; ls"], "sh -c export TOKEN=***"),
        (["sh", "-c", '{"password": "Xk7qz"}'], 'sh -c {"password":***'),
        (["htpasswd", "-b", "/f", "me", "Xk7qz"], "htpasswd -b /f *** ***"),
        (["htpasswd", "-nbB", "me", "Xk7qz"], "htpasswd -nbB me ***"),
        (["htpasswd", "-n", "-b", "me", "Xk7qz"], "htpasswd -n -b me ***"),
        (["htpasswd", "-cb", "-C", "12", "f", "me", "Xk7qz"], "htpasswd -cb -C 12 *** *** ***"),
        (["sh", "-c", "htpasswd -b f me Xk7qz; ls /x"], "sh -c htpasswd -b f *** *** ls /x"),
        (["sh", "-c", "echo 'me:Xk7qz Xk7qz' | chpasswd"], "sh -c echo *** | chpasswd"),
        (["sh", "-c", "x; printf %s me:Xk7qz|chpasswd -e"], "sh -c x; printf *** |chpasswd -e"),
        (["bash", "-c", "chpasswd <<< me:Xk7qz"], "bash -c chpasswd *** ***"),
        (["chpasswd", "me:Xk7qz"], "chpasswd ***"),
        (["sh", "-c", "echo Xk7qz | passwd --stdin me"], "sh -c echo *** | passwd --stdin me"),
        (["sh", "-c", "echo Xk7qz | sudo -S ls"], "sh -c echo *** | sudo -S ls"),
        (
            ["sh", "-c", "echo Xk7qz | docker login --password-stdin"],
            "sh -c echo *** | docker login --password-stdin",
        ),
        (["mysqlimport", "-pXk7qz", "db"], "mysqlimport -p*** db"),
        (["mariadb-check", "-u", "me", "-pXk7qz"], "mariadb-check -u me -p***"),
        (["curl", "-E", "c.pem:Xk7qz", "h"], "curl -E *** h"),
        (["curl", "--cert", "c.pem:Xk7qz"], "curl --cert ***"),
        (["curl", "-x", "me:Xk7qz@proxy:3128", "h"], "curl -x me:***@proxy:3128 h"),
        (["curl", "me:Xk7qz@host/x"], "curl me:***@host/x"),
        (["curl", "-H", "X-Auth: Xk7qz"], "curl -H X-Auth:***"),
        (["psql", "postgresql://me:Xk7qz@h/db"], "psql postgresql://***@h/db"),
        (["redis-cli", "-u", "redis://:Xk7qz@h"], "redis-cli -u redis://***@h"),
        (["sshpass", "-pXk7qz", "ssh", "h"], "sshpass -p*** ssh h"),
        (["skopeo", "copy", "--src-creds", "me:Xk7qz", "a"], "skopeo copy --src-creds *** a"),
        (["podman", "login", "-pXk7qz", "r"], "podman login -p*** r"),
        (["ldapsearch", "-x", "-wXk7qz"], "ldapsearch -x -w***"),
        (["ldapwhoami", "-w", "Xk7qz"], "ldapwhoami -w ***"),
        (["openssl", "rsa", "-passin", "pass:Xk7qz", "-v"], "openssl rsa -passin pass:*** -v"),
        (["openssl", "rsa", "-passin=pass:Xk7qz"], "openssl rsa -passin=***"),
        (["openssl", "enc", "-pass", "pass:Xk7qz"], "openssl enc -pass ***"),
        (["openssl", "passwd", "-6", "Xk7qz"], "openssl passwd -6 ***"),
        (["openssl", "dgst", "-hmac", "Xk7qz", "f"], "openssl dgst -hmac *** f"),
        (["mkpasswd", "Xk7qz"], "mkpasswd ***"),
        (["mkpasswd", "vault"], "mkpasswd ***"),
        (["sh", "-c", "echo stdin:Xk7qz | chpasswd"], "sh -c echo *** | chpasswd"),
        (["wpa_passphrase", "Home", "Xk7qz"], "wpa_passphrase Home ***"),
        (["vault", "login", "Xk7qz"], "vault login ***"),
        (
            ["aws", "configure", "set", "aws_secret_access_key", "Xk7qz"],
            "aws configure set aws_secret_access_key ***",
        ),
        (["rabbitmqctl", "add_user", "me", "Xk7qz"], "rabbitmqctl add_user me ***"),
        (["smbclient", "//h/s", "Xk7qz"], "smbclient //h/s ***"),
        (["snmpwalk", "-A", "Xk7qz", "-X", "Xk7qz", "h"], "snmpwalk -A *** -X *** h"),
        (["ipmitool", "-P", "Xk7qz", "power"], "ipmitool -P *** power"),
        (["rar", "a", "-hpXk7qz", "x"], "rar a -hp*** x"),
        (["ansible-playbook", "-e", "pw=Xk7qz"], "ansible-playbook -e pw=***"),
        (["sqlplus", "me/Xk7qz@db"], "sqlplus ***"),
    ],
)
def test_a_secret_is_masked_where_it_usually_stands(arguments: list[str], shown: str) -> None:
    assert command_text(line(*arguments)) == shown


@pytest.mark.parametrize(
    "arguments",
    [
        ["touch", "/etc/passwd"],
        ["cp", "-p", "a", "b"],
        ["vi", "tokens.txt"],
        ["ls", "a=b"],
        [""],
        ["sudo", "-u", "me", "ls"],
        ["passwd", "bob"],
        ["sh", "-c", "ls --passive x; grep -c y z"],
        ["openssl", "req", "-keyout", "k", "-days", "9"],
        ["vi", "/home/me/eyJ.x"],
        ["scp", "me@host:/a", "host:b"],
        ["docker", "pull", "registry/image:1.2@sha256:0123"],
        ["docker", "pull", "image:1.2@sha256:0123"],
        ["ls", "/cur/12:2,S@host"],
        ["sh", "-c", "vault login ; ls /x"],
        ["htpasswd", "-v", "/f", "me"],
        ["openssl", "x509", "-in", "f"],
        ["sh", "-c", "echo a | grep b"],
        ["sh", "-c", "chpasswd; ls /x"],
        ["rpwgen", "-s"],
    ],
)
def test_what_is_no_secret_stays(arguments: list[str]) -> None:
    assert command_text(line(*arguments)) == " ".join(arguments)


@given(
    before=st.lists(words, max_size=3),
    form=st.sampled_from(
        [
            *("--password={}", "--my-token={}", "secret={}", "API_KEY={}", "ftp://user:{}@host/f"),
            *("x --password {} y", "a;b --my-token\n{}\n", "ghp_0000000000000000{}"),
        ]
    ),
    secret=secrets,
    after=st.lists(words, max_size=3),
)
def test_no_part_of_a_secret_is_shown(
    before: list[str], form: str, secret: str, after: list[str]
) -> None:
    shown = command_text(line("tool", *before, form.format(secret), *after))
    assert secret not in shown
    assert "***" in shown


@given(st.binary(max_size=6_000))
def test_any_command_line_is_one_printable_bounded_line(command: bytes) -> None:
    shown = command_text(command)
    assert len(shown) <= COMMAND_CHARACTERS_MAX
    assert shown.isprintable()


@pytest.mark.parametrize(("length", "is_cut"), [(511, False), (512, False), (513, True)])
def test_what_is_too_long_is_cut_and_says_so(length: int, is_cut: bool) -> None:
    shown = command_text(b"x" * length)
    assert len(shown) == min(length, COMMAND_CHARACTERS_MAX)
    assert shown.endswith("...") is is_cut
