"""What makes score columns: rows or pictures -> float32."""
