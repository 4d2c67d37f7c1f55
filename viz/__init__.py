"""A viewer of heads in the browser: a state, a function that makes its picture, and a page that edits the state."""
