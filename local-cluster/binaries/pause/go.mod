// The process that holds a pod's namespaces open.
module cotune.dev/local-cluster/pause

go 1.26.0
