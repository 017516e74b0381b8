"""A real control plane for tests and benches: etcd, kube-apiserver, kube-controller-manager."""
