package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	"conclave/internal/matrix"
)

// pair is what `conclave dev` keeps of its two servers.
type pair struct {
	Servers []*devServer `json:"servers"`
	dir     string
	mail    *devMail // while it runs
}

// devServer is one of them, with the one user that is made on it; its folder has the user's name.
type devServer struct {
	User       string `json:"user"`
	Password   string `json:"password"`
	Client     int    `json:"client_port"`
	Federation int    `json:"federation_port"` // part of the server's name, so it stays
	Admin      int    `json:"admin_port"`
}

func (s *devServer) name() matrix.ServerName {
	return matrix.ServerName(fmt.Sprintf("localhost:%d", s.Federation))
}

func (s *devServer) userID() string { return fmt.Sprintf("@%s:%s", s.User, s.name()) }

func (s *devServer) url() string { return fmt.Sprintf("http://localhost:%d", s.Client) }

// pairFile is written last: it says that everything else is there.
const pairFile = "dev.json"

// openPair reads a directory that an earlier start prepared, or prepares it.
func openPair(dir string) (*pair, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	p := &pair{dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, pairFile)) //nolint:gosec // the user's own directory
	switch {
	case err == nil:
		if err := json.Unmarshal(text, p); err != nil || len(p.Servers) != 2 {
			return nil, fmt.Errorf("%s is not what conclave dev writes: remove %s to begin anew", pairFile, dir)
		}
		return p, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("reading the directory: %w", err)
	}
	if err := p.create(); err != nil {
		return nil, fmt.Errorf("preparing %s: %w", dir, err)
	}
	return p, nil
}

// create prepares the directory: a certificate authority, and for each server a certificate and a configuration.
func (p *pair) create() error {
	ports, err := freePorts(6)
	if err != nil {
		return err
	}
	for i, user := range []string{"alice", "bob"} {
		p.Servers = append(p.Servers, &devServer{
			User: user, Password: rand.Text()[:12], Client: ports[3*i], Federation: ports[3*i+1], Admin: ports[3*i+2],
		})
	}
	authority, err := newAuthority()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if err := p.write(authority.pem(), "ca.pem"); err != nil {
		return err
	}
	for _, s := range p.Servers {
		if err := p.createServer(s, authority); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	return p.write(text, pairFile)
}

func (p *pair) createServer(s *devServer, authority *authority) error {
	cert, key, err := authority.issue()
	if err != nil {
		return err
	}
	dir := filepath.Join(p.dir, s.User)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := errors.Join(p.write(cert, s.User, "cert.pem"), p.write(key, s.User, "key.pem")); err != nil {
		return err
	}
	return p.write(fmt.Appendf(nil, `# Written by conclave dev, which starts the server with it. Everything may be changed but server_name.
server_name: %s
public_url: %s
data_dir: ./data
listen: {client: "127.0.0.1:%d", federation: "127.0.0.1:%d", admin: "127.0.0.1:%d"}
tls: {cert_file: %q, key_file: %q}
registration: {mode: open}
federation: {ca_file: %q}
network: {allow_private: ["127.0.0.0/8", "::1/128"]}
`, s.name(), s.url(), s.Client, s.Federation, s.Admin, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"),
		filepath.Join(p.dir, "ca.pem")), s.User, "config.yaml")
}

// write writes a file of the directory, whole or not at all, for its owner alone.
func (p *pair) write(data []byte, path ...string) error {
	name := filepath.Join(append([]string{p.dir}, path...)...)
	if err := os.WriteFile(name+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// freePorts finds ports of loopback that nobody listens on. They are below those that systems give to outgoing connections:
// the pair keeps its ports, and such a connection would keep a server from its own at a later start.
func freePorts(n int) ([]int, error) {
	const lowest, highest = 15_000, 32_000
	var ports []int
	for range 1000 {
		port := lowest + mathrand.IntN(highest-lowest)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close() //nolint:errcheck // held until all are found, so that no port is found twice
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, errors.New("there are no free ports on 127.0.0.1 from 15000 to 31999")
}

// authority is a certificate authority whose key is forgotten once both certificates are made.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// devLife is how long the certificates are good for.
const devLife = 10 * 365 * 24 * time.Hour

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	a := &authority{key: key}
	der, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "conclave dev"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, key)
	if err != nil {
		return nil, err
	}
	a.cert, err = x509.ParseCertificate(der)
	return a, err
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue makes a certificate for localhost.
func (a *authority) issue() (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
	}, key)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), nil
}

// sign signs a certificate for a key; the authority's own signs itself.
func (a *authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(devLife)
	parent := a.cert
	if parent == nil {
		parent = template
	}
	return x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, a.key)
}
