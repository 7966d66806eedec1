package keys

// Learns reports whether t, or a member of a composition, is a [Learner]: whether it is worth completing
// a handshake with a dialled agent whose verdict is Unknown.
func Learns(t Trust) bool {
	if m, ok := t.(interface{ members() []Trust }); ok {
		for _, t := range m.members() {
			if Learns(t) {
				return true
			}
		}
		return false
	}
	_, ok := t.(Learner)
	return ok
}
