package kubernetes

import (
	"testing"
)

// The machines are in one network, the pods of each node in one below it, and Services in a third that only kube-proxy knows.
const (
	apiAddress = "10.99.0.1"
	podNetwork = "10.244.0.0/16"
	services   = "10.96.0.0/16"
	apiService = "10.96.0.1"
)

// cluster is a control plane and two nodes.
type cluster struct {
	*credentials
	nodes []*node
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	connect(t)
	c := &cluster{credentials: makeCredentials(t)}
	images := makeImages(t)
	c.startControl(t)
	for i, name := range []string{"one", "two"} {
		c.nodes = append(c.nodes, c.startNode(t, name, i+1, images))
	}
	until(t, "both nodes are ready", func() bool {
		out, err := c.try(t, "wait", "--for=condition=Ready", "node/one", "node/two", "--timeout=1s")
		return err == nil && out != ""
	})
	until(t, "pods have an account", func() bool {
		_, err := c.try(t, "get", "serviceaccount", "default")
		return err == nil
	})
	return c
}

// startControl runs what decides, on a machine without pods.
func (c *cluster) startControl(t *testing.T) {
	t.Helper()
	const database = "http://127.0.0.1:2379"
	start(t, "etcd", "etcd", "--data-dir", shared+"/etcd", "--listen-client-urls", database, "--advertise-client-urls", database,
		"--listen-peer-urls", "http://127.0.0.1:2380")
	start(t, "kube-apiserver", program("kube-apiserver"), "--etcd-servers", database, "--advertise-address", apiAddress,
		"--service-cluster-ip-range", services, "--authorization-mode", "RBAC",
		"--client-ca-file", c.file("ca.crt"), "--tls-cert-file", c.file("server.crt"), "--tls-private-key-file", c.file("server.key"),
		"--kubelet-client-certificate", c.file("admin.crt"), "--kubelet-client-key", c.file("admin.key"),
		"--kubelet-preferred-address-types", "InternalIP",
		"--service-account-issuer", "https://kubernetes.default.svc",
		"--service-account-key-file", c.file("accounts.key"), "--service-account-signing-key-file", c.file("accounts.key"))
	until(t, "the API server is ready", func() bool {
		_, err := c.try(t, "get", "--raw", "/readyz")
		return err == nil
	})
	start(t, "kube-scheduler", program("kube-scheduler"), "--kubeconfig", c.file("kubeconfig"), "--leader-elect=false", "--secure-port=0")
	start(t, "kube-controller-manager", program("kube-controller-manager"), "--kubeconfig", c.file("kubeconfig"), "--leader-elect=false",
		"--secure-port=0", "--root-ca-file", c.file("ca.crt"), "--service-account-private-key-file", c.file("accounts.key"))
}

func (c *cluster) command(arguments []string) []string {
	return append([]string{program("kubectl"), "--kubeconfig", c.file("kubeconfig"), "--cache-dir", shared + "/cache"}, arguments...)
}

// kubectl gives what a command printed.
func (c *cluster) kubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	return do(t, c.command(arguments)...)
}

func (c *cluster) try(t *testing.T, arguments ...string) (string, error) {
	return try(t, c.command(arguments)...)
}
