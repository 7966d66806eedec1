package mesh

// notifier wakes everybody who waits for a condition. It belongs to a mutex:
// both methods are called with it held, the channel is received from without.
type notifier struct{ c chan struct{} }

// wait returns a channel that the next broadcast closes.
func (n *notifier) wait() <-chan struct{} {
	if n.c == nil {
		n.c = make(chan struct{})
	}
	return n.c
}

func (n *notifier) broadcast() {
	if n.c != nil {
		close(n.c)
		n.c = nil
	}
}
