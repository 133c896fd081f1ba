package kubernetes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// credentials are files below one folder: ca.crt; server.crt and server.key of the API server; admin.crt and admin.key, by which all
// programs of the cluster are its administrator; accounts.key, which signs the tokens of service accounts; and kubeconfig.
type credentials struct {
	dir string
	ca  *x509.Certificate
	key *ecdsa.PrivateKey
}

func makeCredentials(t *testing.T) *credentials {
	t.Helper()
	c := &credentials{dir: filepath.Join(shared, "credentials"), key: newKey(t)}
	c.ca = &x509.Certificate{
		Subject: pkix.Name{CommonName: "the cluster's own"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	c.write(t, "ca.crt", "CERTIFICATE", c.sign(t, c.ca, c.key))
	c.issue(t, "server", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		IPAddresses: []net.IP{net.ParseIP(apiAddress), net.ParseIP(apiService)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	c.issue(t, "admin", &x509.Certificate{
		Subject:     pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	c.writeKey(t, "accounts.key", newKey(t))
	mustWrite(t, c.file("kubeconfig"), fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: test, cluster: {server: "https://%s:6443", certificate-authority: ca.crt}}]
users: [{name: admin, user: {client-certificate: admin.crt, client-key: admin.key}}]
contexts: [{name: test, context: {cluster: test, user: admin}}]
current-context: test
`, apiAddress))
	return c
}

func (c *credentials) file(name string) string { return filepath.Join(c.dir, name) }

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (c *credentials) issue(t *testing.T, name string, certificate *x509.Certificate) {
	t.Helper()
	key := newKey(t)
	certificate.KeyUsage = x509.KeyUsageDigitalSignature
	c.write(t, name+".crt", "CERTIFICATE", c.sign(t, certificate, key))
	c.writeKey(t, name+".key", key)
}

func (c *credentials) sign(t *testing.T, certificate *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	certificate.SerialNumber = big.NewInt(time.Now().UnixNano())
	certificate.NotBefore, certificate.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, certificate, c.ca, key.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (c *credentials) writeKey(t *testing.T, name string, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, name, "EC PRIVATE KEY", der)
}

func (c *credentials) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	mustWrite(t, c.file(name), string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
}
