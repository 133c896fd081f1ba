package kubernetes

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// node is a machine of the cluster: a network, and folders for what its containerd and its kubelet keep.
type node struct {
	name    string
	address string
	pods    string // the network of its pods
	pid     int    // of a process that holds its namespaces
}

// connect makes the network that the nodes are in.
func connect(t *testing.T) {
	t.Helper()
	for _, command := range []string{
		"ip link set lo up",
		"ip link add nodes type bridge",
		"ip address add " + apiAddress + "/24 dev nodes",
		"ip link set nodes up",
	} {
		do(t, strings.Fields(command)...)
	}
}

func (c *cluster) startNode(t *testing.T, name string, number int, images []string) *node {
	t.Helper()
	n := &node{name: name, address: fmt.Sprintf("10.99.0.%d", 10+number), pods: fmt.Sprintf("10.244.%d.0/24", number)}
	n.hold(t)
	n.connect(t)
	dir := filepath.Join(shared, name)
	mustWrite(t, dir+"/cni/pods.conflist", fmt.Sprintf(podNetworking, n.pods))
	n.start(t, "containerd", "containerd", "--config", mustWrite(t, dir+"/containerd.toml", fmt.Sprintf(containerdConfig, pauseImage, dir+"/cni")))
	until(t, "containerd answers on node "+name, func() bool {
		_, err := try(t, n.in("ctr", "version")...)
		return err == nil
	})
	for _, image := range images {
		do(t, n.in("ctr", "--namespace", "k8s.io", "images", "import", image)...)
	}
	n.start(t, "kubelet", program("kubelet"), "--kubeconfig", c.file("kubeconfig"), "--hostname-override", name, "--node-ip", n.address,
		"--config", mustWrite(t, dir+"/kubelet.yaml", fmt.Sprintf(kubeletConfig, c.file("ca.crt"))))
	n.start(t, "kube-proxy", program("kube-proxy"), "--config", mustWrite(t, dir+"/proxy.yaml", fmt.Sprintf(proxyConfig, c.file("kubeconfig"), name, podNetwork)))
	return n
}

// hold starts a process that keeps the node's namespaces. The folders in which containerd and the kubelet write are empty there.
func (n *node) hold(t *testing.T) {
	t.Helper()
	holder := exec.Command("/bin/sh", "-c", `set -e
mount --make-rprivate /
for dir in /run /var/lib /var/log; do mount -t tmpfs tmpfs $dir; done
echo ready
exec cat`)
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET}
	in, err := holder.StdinPipe() // open until the test ends
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, len("ready"))); err != nil {
		t.Fatalf("node %s has no folders: %v", n.name, err)
	}
	n.pid = holder.Process.Pid
	t.Cleanup(func() {
		in.Close()
		holder.Wait()
	})
}

// in is a command on the node.
func (n *node) in(command ...string) []string {
	return append([]string{"nsenter", "--target", strconv.Itoa(n.pid), "--net", "--mount", "--"}, command...)
}

func (n *node) start(t *testing.T, name string, command ...string) {
	t.Helper()
	start(t, n.name+"-"+name, n.in(command...)...)
}

// connect gives the node its address, and all others the way to its pods.
func (n *node) connect(t *testing.T) {
	t.Helper()
	for _, command := range []string{
		"ip link add " + n.name + " type veth peer name eth0 netns " + strconv.Itoa(n.pid),
		"ip link set " + n.name + " master nodes up",
		"ip route add " + n.pods + " via " + n.address,
		"sysctl -qw net.ipv4.ip_forward=1",
	} {
		do(t, strings.Fields(command)...)
	}
	for _, command := range []string{
		"ip link set lo up",
		"ip address add " + n.address + "/24 dev eth0",
		"ip link set eth0 up",
		"ip route add default via " + apiAddress,
		"sysctl -qw net.ipv4.ip_forward=1",
	} {
		do(t, n.in(strings.Fields(command)...)...)
	}
}

// Debian has the plugins in /usr/lib/cni. Not every root may protect its processes from the kernel when memory is short (CAP_SYS_RESOURCE).
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "%s"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%s"
`

const podNetworking = `{
  "cniVersion": "0.4.0",
  "name": "pods",
  "plugins": [{
    "type": "bridge", "bridge": "pods", "isDefaultGateway": true, "hairpinMode": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "%s"}]]}
  }]
}
`

// The groups are those of the test and not of a whole machine, so the kubelet makes none for the classes of pods.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: "%s"}}
authorization: {mode: AlwaysAllow}
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
resolvConf: ""
maxOpenFiles: 20000
`

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: "%s"}
hostnameOverride: "%s"
mode: iptables
clusterCIDR: %s
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
`
