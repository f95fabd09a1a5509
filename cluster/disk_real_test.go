package cluster

func newRealDisk(s *sim, n *vnode) simDisk { panic("not yet") }
