#!/bin/sh
# Makes what the parts of an encrypted deployment know each other by: one authority, a certificate for each part, and
# the tokens and the store's password. For compose and for Kubernetes. See docs/deploying.md.
#   docker/make-certificates.sh [FOLDER] [DAYS]
# FOLDER (docker/secrets) gets one folder for each part, which is all that this part shall see. Keep ca.key elsewhere:
# whoever has it can make a certificate for anything here. Nothing that is there already is written over.
set -eu
umask 077

folder=${1:-"$(dirname "$0")/secrets"}
days=${2:-365}
namespace=${NAMESPACE:-lookonce}

if [ -e "$folder" ]; then
    echo "$folder is there already: remove it to start anew, which every part then has to" >&2
    exit 1
fi
mkdir -p "$folder"

new_key() { # FILE
    openssl ecparam -genkey -name prime256v1 -noout | openssl pkcs8 -topk8 -nocrypt -out "$1"
}

secret() {
    openssl rand -hex 32
}

new_key "$folder/ca.key"
openssl req -x509 -new -key "$folder/ca.key" -days "$days" -subj "/CN=lookonce authority" -out "$folder/ca.pem" \
    -addext "keyUsage=critical,keyCertSign,cRLSign"

between_workers=$(secret)
password=$(secret)

for part in redis vision language gateway; do
    own=$folder/$part
    mkdir "$own"
    new_key "$own/key.pem"
    # The names by which the others, its own health check, and in a cluster the other pods reach it.
    names="DNS:$part,DNS:$part.$namespace.svc,DNS:$part.$namespace.svc.cluster.local,DNS:localhost,IP:127.0.0.1"
    printf 'subjectAltName=%s\nbasicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n' "$names" \
        >"$folder/extensions"
    openssl req -new -key "$own/key.pem" -subj "/CN=$part" -out "$folder/request"
    openssl x509 -req -in "$folder/request" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial -days "$days" \
        -extfile "$folder/extensions" -out "$own/cert.pem" 2>/dev/null
    cp "$folder/ca.pem" "$own/ca.pem"
    if [ "$part" != redis ]; then
        echo "$between_workers *" >"$own/peers"
    fi
done
rm "$folder/extensions" "$folder/request"

# The workers' user may do to its own keys what the workers do; whoever names no user may only ask whether Redis lives.
cat >"$folder/redis/users.acl" <<ACL
user default on nopass resetkeys resetchannels -@all +ping
user lookonce on >$password ~lookonce:* resetchannels -@all +get +set +unlink +getrange +strlen +pttl +ping +select
ACL

files="ssl_ca_certs=/secrets/ca.pem&ssl_certfile=/secrets/cert.pem&ssl_keyfile=/secrets/key.pem"
echo "LOOKONCE_CACHE=rediss://lookonce:$password@redis:6379/0?$files" >"$folder/cache.env"

probe=$(secret)
client=$(secret)
printf '%s probe\n%s first\n' "$probe" "$client" >"$folder/gateway/tokens"
printf '%s' "$probe" >"$folder/gateway/probe-token"
printf '%s\n' "$client" >"$folder/first-token"

# A part's folder is mounted into its container, whose user is another one than yours. The folder around them is closed.
chmod 755 "$folder"/redis "$folder"/vision "$folder"/language "$folder"/gateway
chmod 644 "$folder"/redis/* "$folder"/vision/* "$folder"/language/* "$folder"/gateway/*
echo "$folder: an authority, four certificates for $days days, tokens and the store's user. first-token is a client's."
