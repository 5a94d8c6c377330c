export function App() {
  return <h1>Conclave</h1>;
}
